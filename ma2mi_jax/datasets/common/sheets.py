"""Annotation sheets (.xlsx) as rows of text, wherever their header stands and however their columns are spelled."""

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


def read(path: str) -> list[dict[str, str]]:
    """The rows below the first row that holds the REQUIRED headings, on whichever sheet; only those that name a file, or
    a subject and an emotion.

    Headings are keys in lower case without blanks (`OnsetFrame`, `Onset Frame` → `onsetframe`). Values are trimmed text, whole numbers
    without a decimal point, `""` for an empty cell.

    Raises:
      UserError: no such file, none that can be read, or no such header, or nothing below it.
    """
    name = f"annotation sheet {path}"
    if not os.path.isfile(path):
        raise UserError(f"{name}: no such file; give --annotations=SHEET.xlsx")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", category=UserWarning, module="openpyxl"
            )  # on colours and drop-down lists it drops
            book = openpyxl.load_workbook(path, data_only=True)
    except (
        InvalidFileException,
        zipfile.BadZipFile,
        ParseError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{name}: cannot be read as an Excel workbook ({reason}); save it anew as .xlsx"
        ) from None
    best: Sequence[str] = ()
    for sheet in book.worksheets:
        rows = [[_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
        for at, row in enumerate(rows):
            headings = [_heading(text) for text in row]
            missing = [heading for heading in REQUIRED if heading not in headings]
            if not missing:
                found = [
                    {h: text for h, text in zip(headings, row, strict=True) if h}
                    for row in rows[at + 1 :]
                ]
                if rows := [
                    row
                    for row in found
                    if row["filename"] or (row["subject"] and row["estimatedemotion"])
                ]:
                    return rows
                raise UserError(
                    f"{name}: no row below the headings names a file; give the authors' own sheet"
                )
            if len(missing) < len(best or REQUIRED):
                best = missing
    found = f"the nearest to it lacks {', '.join(best)}" if best else "there is none of them"
    raise UserError(
        f"{name}: looked for a row with the headings {', '.join(REQUIRED)}, but {found}; give the authors' own sheet"
    )


def whole(text: str) -> int | None:
    """The integer a cell holds, None where it holds anything else (`/`, nothing, a word)."""
    return int(text) if re.fullmatch(r"[0-9]+", text) else None


def _text(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _heading(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())
