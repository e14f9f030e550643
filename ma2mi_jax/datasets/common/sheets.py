"""Annotation sheets (.xlsx, .xls, .ods, .csv) as rows of text, wherever their header stands and
however their columns are spelled."""

import csv
import io
import os
import re
import zipfile
from collections.abc import Sequence

from python_calamine import CalamineError

from ma2mi_jax.datasets.common import workbooks
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import UNZIPPING, opened

SUFFIXES = (".xlsx", ".xls", ".ods", ".csv")
MOST = 2_000_000
"""Cells of a page, up to its last row and column that hold anything. It takes seconds to read so
many. A stray cell far from the table makes more."""

MOST_BYTES = 200_000_000  # of a sheet, as it lies on the disk and as it is unpacked
DIGITS = 15  # of a number that counts something; Python refuses to read more than 4,300

END = "\x1e end of the sheet"  # where a quote is never closed, it is a part of the last cell

REQUIRED = ("subject", "filename", "onsetframe", "apexframe", "offsetframe", "estimatedemotion")
SPELLINGS = {
    "sub": "subject",
    "subid": "subject",
    "foldname": "filename",
    "onset": "onsetframe",
    "onsetf": "onsetframe",
    "apex": "apexframe",
    "apexf": "apexframe",
    "apexf1": "apexframe",
    "offset": "offsetframe",
    "offsetf": "offsetframe",
    "emotion": "estimatedemotion",
    "au": "actionunits",
    "aus": "actionunits",
    "framerate": "fps",
}
"""Other headings of the same columns. A column that has the proper heading goes before these."""


def read(path: str) -> list[dict[str, str]]:
    """The rows below the first row that has the REQUIRED headings, on whichever page of the book.

    A row counts if it names a file, or a subject and an emotion.

    Returns:
      One dictionary for each row. Keys are the headings in lower case without anything but letters
      and digits (`OnsetFrame` and `Onset Frame` are `onsetframe`), and as SPELLINGS has them.
      Values are text without spaces around it, whole numbers without a decimal point, `""` for an
      empty cell.

    Raises:
      UserError: there is no such file, it cannot be read, it has no such headings, or there is
        nothing below them.
    """
    nearest: Sequence[str] = REQUIRED  # what the best row of headings so far lacks
    for rows in pages(path).values():
        for at, row in enumerate(rows):
            headings = _headings(row)
            missing = [heading for heading in REQUIRED if heading not in headings]
            if not missing:
                return _below(path, headings, rows[at + 1 :])
            if len(missing) < len(nearest):
                nearest = missing

    found = "there is none of them"
    if nearest is not REQUIRED:
        found = f"the nearest to it lacks {', '.join(nearest)}"
    raise UserError(
        "annotation sheet {path}: looked for a row with the headings {headings}, but {found}; "
        "give the authors' own sheet",
        path=path,
        headings=", ".join(REQUIRED),
        found=found,
    )


def pages(path: str) -> dict[str, list[list[str]]]:
    """The pages of a book by name: rows of cells, as text in the way that `read` has it.

    The first row is the first line of the sheet, so that rows can be named by number. All rows of a
    page have the same length. A text file (.csv) is one page; its cells are divided by commas,
    semicolons or tabs, whichever divide it most.

    Raises:
      UserError: there is no such file, it cannot be read, or a cell lies too far from the others.
    """
    if path.rstrip().lower().endswith(".csv"):
        return {"": _divided(path)}
    content = _contents(path)
    try:
        _check_extent(path, _far_corner(path, io.BytesIO(content)))
        found = workbooks.read(content, MOST)
    # a RuntimeError is a password
    except (CalamineError, OSError, ValueError, EOFError, RuntimeError, *UNZIPPING) as error:
        raise _unreadable(path, "a workbook (.xlsx, .xls, .ods)", error) from None
    for _, extent, _ in found:
        _check_extent(path, extent)
    return {name: cells for name, _, cells in found}


def notes(path: str) -> tuple[str, ...]:
    """What is to be told of how a sheet was read: one line if its letters had to be guessed."""
    if path.rstrip().lower().endswith(".csv") and _decoded(_contents(path))[1] == "latin-1":
        return (f"{os.path.basename(path)} is not in UTF-8: its letters are read as Latin-1",)
    return ()


def _contents(path: str) -> bytes:
    if not os.path.exists(path):
        raise UserError(
            "annotation sheet {path}: no such file; give another [annotations]", path=path
        )
    try:
        with opened(path) as file:
            _check_bytes(path, os.fstat(file.fileno()).st_size)
            return file.read()
    except OSError as error:
        raise _unreadable(path, "a file", error) from None


def _unreadable(path: str, form: str, error: Exception) -> UserError:
    return UserError(
        "annotation sheet {path}: cannot be read as {form}: {reason}; save it again, as .xlsx or "
        ".csv",
        path=path,
        form=form,
        reason=" ".join(str(getattr(error, "strerror", None) or error).split())[:120],
    )


def _far_corner(path: str, file: io.BytesIO) -> tuple[int, int]:
    """Number of rows and columns up to the last cells of an .xlsx or .ods file that hold anything;
    (0, 0) for another file.

    It is asked beforehand, because reading a page takes memory for all cells up to there at once.

    Raises:
      UserError: unpacked, the file is too large.
    """
    if not zipfile.is_zipfile(file):
        return 0, 0
    corners = [(0, 0)]
    with zipfile.ZipFile(file) as book:
        _check_bytes(path, sum(part.file_size for part in book.infolist()))
        for name in book.namelist():
            if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name):
                corners.append(_corner_of_xlsx(book.read(name)))
            elif name == "content.xml":
                corners.append(_corner_of_ods(book.read(name)))
    rows, columns = zip(*corners, strict=True)
    return max(rows), max(columns)


def _corner_of_xlsx(page: bytes) -> tuple[int, int]:
    rows = columns = 0
    filled = rb'<(?:\w+:)?c\s[^>]*?\br="([A-Z]{1,3})([0-9]{1,7})"[^>]*(?<!/)>'
    for letters, row in re.findall(filled, page):
        column = 0
        for letter in letters:
            column = 26 * column + letter - ord("A") + 1
        rows, columns = max(rows, int(row)), max(columns, column)
    return rows, columns


def _corner_of_ods(content: bytes) -> tuple[int, int]:
    """Rows and cells that are alike are written once, with how often they are repeated."""
    row = column = rows = columns = 0
    known = rb"<table:(table-row|(?:covered-)?table-cell|table)(?=[\s/>])([^>]*)>"
    for kind, attributes in re.findall(known, content):
        often = re.search(rb'-repeated="([0-9]{1,9})"', attributes)
        count = int(often[1]) if often else 1
        if kind == b"table":
            row = column = 0
        elif kind == b"table-row":
            row, column = row + count, 0
        else:
            column += count
            if b":value-type=" in attributes:
                rows, columns = max(rows, row), max(columns, column)
    return rows, columns


def _check_bytes(path: str, size: int) -> None:
    if size > MOST_BYTES:
        raise UserError(
            "annotation sheet {path}: has {size} bytes when it is unpacked, at most {most} are "
            "read; save the table alone, as .csv",
            path=path,
            size=f"{size:,}",
            most=f"{MOST_BYTES:,}",
        )


def _check_extent(path: str, extent: tuple[int, int]) -> None:
    rows, columns = extent
    if rows * columns > MOST:
        raise UserError(
            "annotation sheet {path}: its cells reach to row {rows} and column {columns}, at most "
            "{most} cells are read; delete what lies far from the table",
            path=path,
            rows=rows,
            columns=columns,
            most=f"{MOST:,}",
        )


# ----- text files ---------------------------------------------------------------------------------


def _divided(path: str) -> list[list[str]]:
    """The rows of a text file, at the numbers of the lines on which they begin."""
    text, _ = _decoded(_contents(path))
    try:
        divided = {divider: _rows(text, divider) for divider in ",;\t"}
        closed = {divider: rows.pop() == [END] for divider, rows in divided.items()}
        best = max(divided, key=lambda d: sum(map(len, divided[d])) if closed[d] else text.count(d))
        rows = divided[best]
        if not closed[best]:
            last = max(at for at, row in enumerate(rows, 1) if row)
            raise csv.Error(f"a quote in the row on line {last} is never closed")
    except csv.Error as error:
        raise _unreadable(path, "text with commas, semicolons or tabs", error) from None
    width = max(map(len, rows), default=0)
    _check_extent(path, (len(rows), width))
    return [[cell.strip() for cell in row] + [""] * (width - len(row)) for row in rows]


def _rows(text: str, divider: str) -> list[list[str]]:
    """The rows of a text with END on a line of its own behind it."""
    rows: list[list[str]] = []
    ended = f"{text}{END}" if text.endswith("\n") else f"{text}\n{END}"
    lines = csv.reader(io.StringIO(ended, newline=""), delimiter=divider)
    for row in lines:
        rows.append(row)
        rows += [[] for _ in range(lines.line_num - len(rows))]  # a cell of several lines
    return rows


def _decoded(contents: bytes) -> tuple[str, str]:
    """The text of a file, and its encoding by name."""
    marked = contents.startswith((b"\xff\xfe", b"\xfe\xff"))  # as Excel's "Unicode text"
    encoding = "utf-16" if marked else "utf-8-sig"
    try:
        return contents.decode(encoding), encoding
    except UnicodeDecodeError:
        return contents.decode("latin-1"), "latin-1"


# ----- rows and cells -----------------------------------------------------------------------------


def _below(
    path: str, headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[dict[str, str]]:
    """The rows below the headings that count."""
    found = [
        {heading: text for heading, text in zip(headings, row, strict=True) if heading}
        for row in rows
    ]
    named = [
        row for row in found if row["filename"] or (row["subject"] and row["estimatedemotion"])
    ]
    if not named:
        raise UserError(
            "annotation sheet {path}: no row below the headings names a file; give the authors' "
            "own sheet",
            path=path,
        )
    return named


_WHOLE = re.compile(rf"[0-9]{{1,{DIGITS}}}(\.0+)?")


def whole(text: str) -> int | None:
    """The integer that a cell holds, also as `46.0`, which programs write into text files where a
    column has empty cells; None if it holds anything else (`/`, nothing, a word, or more than
    DIGITS digits)."""
    return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None


def _headings(row: Sequence[str]) -> list[str]:
    written = [re.sub(r"[^a-z0-9]", "", text.lower()) for text in row]
    proper = {text: SPELLINGS.get(text, text) for text in written}
    return [text if proper[text] in written else proper[text] for text in written]
