"""Annotation sheets (.xlsx, .csv) as rows of text, wherever their header stands and however their
columns are spelled."""

import csv
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from ma2mi_jax.errors import UserError

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

    Raises:
      UserError: there is no such file, or it cannot be read.
    """
    if path.lower().endswith(".csv") and os.path.isfile(path):
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            return {"": [[_text(cell) for cell in row] for row in csv.reader(file)]}
    return {
        page.title: [[_text(value) for value in row] for row in page.iter_rows(values_only=True)]
        for page in _opened(path).worksheets
    }


def _opened(path: str) -> openpyxl.Workbook:
    if not os.path.isfile(path):
        raise UserError(
            "annotation sheet {path}: no such file; give another [annotations]", path=path
        )
    unreadable = (
        InvalidFileException,
        zipfile.BadZipFile,
        ParseError,
        KeyError,
        ValueError,
        OSError,
    )
    try:
        with warnings.catch_warnings():
            # openpyxl warns of colours and drop-down lists that it drops
            warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
            return openpyxl.load_workbook(path, data_only=True)
    except unreadable as error:
        raise UserError(
            "annotation sheet {path}: cannot be read as an Excel workbook ({reason}); save it "
            "again as .xlsx",
            path=path,
            reason=" ".join(str(error).split())[:120],
        ) from None


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


def whole(text: str) -> int | None:
    """The integer that a cell holds; None if it holds anything else (`/`, nothing, a word)."""
    return int(text) if re.fullmatch(r"[0-9]+", text) else None


def _text(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _headings(row: Sequence[str]) -> list[str]:
    written = [re.sub(r"[^a-z0-9]", "", text.lower()) for text in row]
    proper = {text: SPELLINGS.get(text, text) for text in written}
    return [text if proper[text] in written else proper[text] for text in written]
