"""A page as a list of blocks, written as Markdown and as one self-contained HTML file."""

import base64
import dataclasses
import html as markup
import pathlib
import re
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
    """`rows` of text, the first column being names and the others numbers or words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Items:
    """Lines of text, each a thing of its own."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines as they are typed."""

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file, what is to be said of it, and what it shows for those who cannot see it."""

    path: pathlib.Path
    caption: str
    alt: str


Block = Heading | Text | Items | Table | Code | Picture


NUMBER = re.compile(r"(– / )?[-+±–−]?([0-9]([^A-Za-z]| to )*)?|missing")
"""A cell of digits and signs, an interval, or an empty or missing one."""

# ----- writing ------------------------------------------------------------------------------------

MANY = 5  # columns from which a table is laid out in another way on a narrow screen
NARROW = 48  # characters that fit there side by side
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
p, ul { max-width: 60rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
h3 { margin-top: 2rem; }
.wide { overflow-x: auto; margin-top: 1.2rem; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid #e4e4e4; overflow-wrap: break-word; }
td + td { overflow-wrap: anywhere; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
.number + .number, td + .number, th + .number { text-align: right; }
td.number { white-space: nowrap; }
.caption, figcaption { color: #555; margin: .4rem 0; max-width: 60rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: .8rem; white-space: pre-wrap; font-size: 12px; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .8rem; }
  h1 { font-size: 1.5rem; }
  table { font-size: 12px; }
  th, td { padding: .2rem .3rem; }
  .upright th + th { writing-mode: vertical-rl; text-align: left; vertical-align: middle; }
  .stacked thead { display: none; }
  .stacked table, .stacked tbody, .stacked tr { display: block; }
  .stacked tr { border-bottom: 1px solid #888; padding: .3rem 0; }
  .stacked td { display: flex; justify-content: space-between; border: 0; padding: .1rem .3rem; }
  .stacked td::before { content: attr(data-column); color: #555; }
  .stacked td:empty { display: none; }
  .stacked td:first-child { font-weight: bold; }
  .stacked td:first-child::before { content: none; }
}
"""


def without_empty(table: Table) -> Table:
    """A table without the columns that hold nothing but dashes; the first one stays."""
    said = [
        not i or not table.rows or any(row[i] not in ("", "–") for row in table.rows)
        for i in range(len(table.columns))
    ]

    def kept(cells: Sequence[str]) -> list[str]:
        return [cell for cell, wanted in zip(cells, said, strict=True) if wanted]

    return dataclasses.replace(table, columns=kept(table.columns), rows=list(map(kept, table.rows)))


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def markdown(blocks: Sequence[Block], folder: pathlib.Path) -> str:
    """The page as Markdown; pictures are linked relative to `folder`, in which they lie."""
    return "\n\n".join(_markdown(block, folder) for block in blocks) + "\n"


def _markdown(block: Block, folder: pathlib.Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Items(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Code(lines):
            return "\n".join(["```", *lines, "```"])
        case Picture(path, caption, alt):
            return f"![{alt}]({path.relative_to(folder).as_posix()})\n\n*{caption}*"
        case Table():
            table = without_empty(block)
            columns, rows, caption = table.columns, table.rows, table.caption
            cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
            lines = [f"| {' | '.join(row)} |" for row in cells]
            lines.insert(1, "|" + "|".join([":--"] + ["--:"] * (len(columns) - 1)) + "|")
            return "\n".join(lines) + (f"\n\n*{caption}*" if caption else "")


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page as HTML that needs no other file: pictures are inside. No script can run in it."""
    head = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
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
        case Items(lines):
            return "<ul>" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>"
        case Code(lines):
            return f"<pre>{escape(chr(10).join(lines))}</pre>"
        case Picture(path, caption, alt):
            data = base64.b64encode(path.read_bytes()).decode()
            kind = "jpeg" if path.suffix == ".jpg" else "png"
            image = f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'
            return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
        case Table():
            table = without_empty(block)
            columns, rows, caption = table.columns, table.rows, table.caption
            numbers = of_numbers(columns, rows)
            head = f"<thead>{_html_row(columns, 'th', numbers)}</thead>" if any(columns) else ""
            body = "".join(_html_row(row, "td", numbers, columns) + "\n" for row in rows)
            below = f'<p class="caption">{escape(caption)}</p>' if caption else ""
            table = f"<table>{head}<tbody>\n{body}</tbody></table>"
            return f'<div class="wide {_narrow(columns, rows)}">{table}</div>{below}'


def of_numbers(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns of a table hold numbers alone: they stand on the right, others on the left."""
    return [all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(columns))]


def _narrow(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """How a table is laid out on a narrow screen: as it is, with upright headings, or each row as a
    list."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(columns))]
    if len(columns) > 2 and sum(widths) > NARROW:
        return "stacked"
    return "upright" if len(columns) >= MANY else ""


def _html_row(
    cells: Sequence[str], tag: str, numbers: Sequence[bool], columns: Sequence[str] = ()
) -> str:
    """A row; `numbers` says which columns hold nothing else, `columns` what stands above cells."""
    marks = [" class=number" if each else "" for each in numbers]
    if columns:
        names = [f' data-column="{markup.escape(name)}"' for name in columns]
        marks = [mark + name for mark, name in zip(marks, names, strict=True)]
    pairs = zip(cells, marks, strict=True)
    inside = (f"<{tag}{mark}>{markup.escape(cell)}</{tag}>" for cell, mark in pairs)
    return f"<tr>{''.join(inside)}</tr>"
