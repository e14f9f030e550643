"""The cells of a workbook, and those of an old one (.xls), which a process of its own reads: of a
damaged one calamine asks for memory without end, and the process that asks is ended."""

import io
import json
import resource
import subprocess
import sys

import python_calamine as calamine

OLD = b"\xd0\xcf\x11\xe0"  # with which an .xls file begins
MEMORY = 2 << 30  # bytes of that process
SECONDS = 60

Page = tuple[str, tuple[int, int], list[list[str]]]
"""Name, number of rows and columns up to the last cell that holds anything, and the cells as text;
no cells if there are too many."""


def read(content: bytes, most: int) -> list[Page]:
    """The pages of a workbook.

    Args:
      content: of the file.
      most: cells of a page that is read.

    Raises:
      calamine.CalamineError, ValueError: it cannot be read.
    """
    if not content.startswith(OLD):
        return _read(content, most)
    words = [sys.executable, "-I", __file__, str(most)]
    try:
        done = subprocess.run(words, input=content, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"not read after {SECONDS} seconds") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").splitlines()
        is_told = done.returncode == 1 and told
        raise ValueError(told[-1] if is_told else "damaged")
    return [(name, tuple(extent), cells) for name, extent, cells in json.loads(done.stdout)]


def _read(content: bytes, most: int) -> list[Page]:
    book, found = calamine.CalamineWorkbook.from_filelike(io.BytesIO(content)), []
    for about in book.sheets_metadata:
        if about.typ != calamine.SheetTypeEnum.WorkSheet:
            continue  # a chart has no cells
        page = book.get_sheet_by_name(about.name)
        row, column = page.end or (-1, -1)
        extent = (row + 1, column + 1)
        fits = extent[0] * extent[1] <= most
        rows = page.to_python(skip_empty_area=False) if fits else []
        found.append((about.name, extent, [[_text(value) for value in row] for row in rows]))
    return found


def _text(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        sys.stdout.write(json.dumps(_read(sys.stdin.buffer.read(), int(sys.argv[1]))))
    except (calamine.CalamineError, OSError, ValueError) as error:
        sys.exit(" ".join(str(error).split()))
