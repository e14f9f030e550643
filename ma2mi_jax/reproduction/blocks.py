"""A page as a list of blocks, written as Markdown and as one self-contained HTML file."""

import base64
import dataclasses
import html as markup
import pathlib
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Heading:
    """A headline; 1 is the page's own."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """`rows` of text, the first column being names and the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines as they are typed."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file and what it shows."""

    path: pathlib.Path
    caption: str


Block = Heading | Text | Table | Code | Picture


# ----- writing ------------------------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
h3 { margin-top: 2rem; }
.wide { overflow-x: auto; margin-top: 1.2rem; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th, td { border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 2px solid #888; }
th:first-child, td:first-child { text-align: left; }
.caption, figcaption { color: #555; margin: .4rem 0; max-width: 60rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 12px; }
"""


def markdown(blocks: Sequence[Block], folder: pathlib.Path) -> str:
    """The page as Markdown; pictures are linked relative to `folder`, in which they lie."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block: Block, folder: pathlib.Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Code(lines):
            return "\n".join(["```", *lines, "```"])
        case Picture(path, caption):
            return f"![{path.stem}]({path.relative_to(folder).as_posix()})\n\n*{caption}*"
        case Table(columns, rows, caption):
            cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
            lines = [f"| {' | '.join(row)} |" for row in cells]
            lines.insert(1, "|" + "|".join([":--"] + ["--:"] * (len(columns) - 1)) + "|")
            return "\n".join(lines) + (f"\n\n*{caption}*" if caption else "")


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page as HTML that needs no other file: pictures are inside."""
    head = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        f"<title>{markup.escape(title)}</title>",
        f"<style>{STYLE}</style>",
    ]
    return "\n".join([*head, *map(_html, blocks), "</html>"]) + "\n"


def _html(block: Block) -> str:
    escape = markup.escape
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Code(lines):
            return f"<pre>{escape(chr(10).join(lines))}</pre>"
        case Picture(path, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{data}" alt="">'
            return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
        case Table(columns, rows, caption):
            head = f"<thead>{_html_row(columns, 'th')}</thead>"
            body = "".join(_html_row(row, "td") + "\n" for row in rows)
            below = f'<p class="caption">{escape(caption)}</p>' if caption else ""
            table = f"<table>{head}<tbody>\n{body}</tbody></table>"
            return f'<div class="wide">{table}</div>{below}'


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{markup.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
