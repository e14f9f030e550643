"""Annotation sheets in every form that people have, and damaged ones."""

import datetime
import pathlib
import warnings
import zipfile

import miniatures
import openpyxl
import pytest
import xlwt
from reading import read as read_dataset

from ma2mi_jax.datasets.common import sheets
from ma2mi_jax.errors import UserError

HEADINGS = [*sheets.REQUIRED]
ROWS = [["01", "EP02_01f", 46, 59, 86, "happiness"], [1, "EP03 é", 5, "/", 9, "sad; very"]]
READ = [
    dict(zip(HEADINGS, map(str, row), strict=True)) for row in ROWS
]  # numbers are whole, text keeps its zeros


def read(path: pathlib.Path) -> list[dict[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sheets.read(str(path))


def error_of(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        sheets.read(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sheet_is_text_whatever_its_cells_are(tmp_path):
    headings = [
        "Subject ",
        "File name",
        "Onset Frame",
        "ApexFrame",
        "offset_frame",
        None,
        "Estimated  Emotion",
    ]
    rows = [
        [1, " a ", 5.0, "/", None, "ignored", " Happiness"],
        [None] * 7,
        ["006", None, 1, 2, 3, None, "x"],
        ["007", None, 1, 2, 3, None, None],
        [2, 3.5, "7", 1, 2, 0, True],
    ]
    miniatures.workbook(tmp_path / "s.xlsx", headings, rows, preamble=13)
    assert sheets.read(str(tmp_path / "s.xlsx")) == [
        {
            "subject": "1",
            "filename": "a",
            "onsetframe": "5",
            "apexframe": "/",
            "offsetframe": "",
            "estimatedemotion": "Happiness",
        },
        {
            "subject": "006",
            "filename": "",
            "onsetframe": "1",
            "apexframe": "2",
            "offsetframe": "3",
            "estimatedemotion": "x",
        },
        {
            "subject": "2",
            "filename": "3.5",
            "onsetframe": "7",
            "apexframe": "1",
            "offsetframe": "2",
            "estimatedemotion": "True",
        },
    ]
    assert [sheets.whole(text) for text in ("12", "46.0", "/", "", "1.5", "-3", "four")] == [
        12,
        46,
        None,
        None,
        None,
        None,
        None,
    ]


def test_the_header_may_stand_on_another_page(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", ["About"], [])
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    page = book.create_sheet("Codes")
    page.append([*sheets.REQUIRED])
    page.append([1, "a", 2, 3, 4, "fear"])
    book.save(tmp_path / "s.xlsx")
    assert [row["filename"] for row in sheets.read(str(tmp_path / "s.xlsx"))] == ["a"]


# ----- the same content in another form -----------------------------------------------------------


def ods(path, rows, far=""):
    """An OpenDocument sheet; `far` is more XML below the rows."""
    names = "urn:oasis:names:tc:opendocument:xmlns"

    tag = "table:table-cell"

    def cell(value):
        if isinstance(value, str):
            return f'<{tag} office:value-type="string"><text:p>{value}</text:p></{tag}>'
        return f'<{tag} office:value-type="float" office:value="{value}"/>'

    lines = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        file.writestr("META-INF/manifest.xml", f'<manifest xmlns="{names}:manifest:1.0"/>')
        file.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{names}:office:1.0" '
            f'xmlns:table="{names}:table:1.0" xmlns:text="{names}:text:1.0"><office:body>'
            f'<office:spreadsheet><table:table table:name="S">{lines}{far}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )


def xls(path, rows):
    book = xlwt.Workbook()
    page = book.add_sheet("S")
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            page.write(i, j, value)
    book.save(str(path))


def test_books_of_other_programs(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
    xls(tmp_path / "s.xls", [HEADINGS, *ROWS])
    ods(tmp_path / "s.ods", [HEADINGS, *ROWS])
    for name in ("s.xlsx", "s.xls", "s.ods"):
        assert read(tmp_path / name) == READ, name


@pytest.mark.parametrize("divider", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_files(tmp_path, divider, encoding, end):
    rows = [["my own sheet"], [], HEADINGS, *ROWS]
    lines = [divider.join(f'"{v}"' if ";" in str(v) else str(v) for v in row) for row in rows]
    path = tmp_path / "s.csv"
    path.write_bytes(end.join(lines).encode(encoding))
    assert read(path) == READ
    told = ("s.csv is not in UTF-8: its letters are read as Latin-1",)
    assert sheets.notes(str(path)) == (told if encoding == "latin-1" else ())


def test_rows_of_a_text_file_are_at_their_lines(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text('a,b\n\n"two\nlines",c\nd,e,f\n')
    assert sheets.pages(str(path))[""] == [
        ["a", "b", ""],
        ["", "", ""],
        ["two\nlines", "c", ""],
        ["", "", ""],
        ["d", "e", "f"],
    ]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path, end):
    path = tmp_path / "s.csv"
    path.write_text('a,b\nc,"12 inch\nd,e\nf,g' + end)
    with pytest.raises(UserError, match=r"a quote in the row on line 2 is never closed"):
        sheets.pages(str(path))
    path.write_text('a,b\nc,"12"" inch"\nd,e 12"\nf,"g"' + end)
    assert sheets.pages(str(path))[""] == [
        ["a", "b"],
        ["c", '12" inch'],
        ["d", 'e 12"'],
        ["f", "g"],
    ]


def test_a_book_keeps_its_empty_rows_in_front(tmp_path):
    book = openpyxl.Workbook()
    book.active.cell(3, 2, "a")
    book.save(tmp_path / "s.xlsx")
    assert sheets.pages(str(tmp_path / "s.xlsx")) == {"Sheet": [["", ""], ["", ""], ["", "a"]]}


def test_a_dataset_is_read_with_its_sheet_as_text_and_that_is_told(tmp_path):
    root = tmp_path / "data"
    miniatures.clip(root / "006" / "006_1_2", range(1, 10), "006_{}.jpg", 4)
    root.joinpath("SAMM_Micro.csv").write_bytes(
        ",".join(HEADINGS).encode() + b",notes\n6,006_1_2,1,4,9,anger,d\xe9go\xfbt\n"
    )
    root.joinpath("other.csv").write_text("1,2\n")
    found = read_dataset("samm", root, tmp_path)
    assert [(clip.id, clip.apex) for clip in found.clips] == [("006/006_1_2", 3)]
    assert "SAMM_Micro.csv is not in UTF-8: its letters are read as Latin-1" in found.notes


# ----- what Excel leaves in books -----------------------------------------------------------------


def rewritten(path, member, change):
    """Changes a member of a zip file; None takes it away."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            data = change(data) if name == member else data
            if data is not None:
                file.writestr(name, data)


def test_styles_are_not_asked_for(tmp_path):
    path = tmp_path / "s.xlsx"
    miniatures.workbook(path, HEADINGS, ROWS)
    with zipfile.ZipFile(path) as file:
        styles = file.read("xl/styles.xml")
    full = styles.partition(b"<fill>")[2].partition(b"</fill>")[0]
    assert full
    rewritten(
        path, "xl/styles.xml", lambda data: data.replace(b"<fill>" + full + b"</fill>", b"<fill/>")
    )
    assert read(path) == READ
    rewritten(path, "xl/styles.xml", lambda data: None)
    assert read(path) == READ


def test_charts_are_passed_over(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    book.create_chartsheet("Diagram", 0)
    book.save(tmp_path / "s.xlsx")
    assert list(sheets.pages(str(tmp_path / "s.xlsx"))) == ["Sheet"]
    assert read(tmp_path / "s.xlsx") == READ


def test_dates_truths_and_fractions(tmp_path):
    day = datetime.date(2014, 5, 8)
    miniatures.workbook(tmp_path / "s.xlsx", [day, True, 2.5, 3.0, -1, " x "], [])
    (row,) = sheets.pages(str(tmp_path / "s.xlsx"))["Sheet"]
    assert row == ["2014-05-08", "True", "2.5", "3", "-1", "x"]


# ----- stray cells and damage ---------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), [(20_000, 2), (2, 16_384)])
def test_a_stray_cell(tmp_path, row, column):
    miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    book.active.cell(row, column).value = book.active.cell(row, column).value or " "
    book.save(tmp_path / "s.xlsx")
    assert read(tmp_path / "s.xlsx") == READ


def test_a_cell_in_the_far_corner_is_told(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
    for cell in ('<c r="XFD1048576" s="0"/>', '<c r="XFD1048576"><v>1</v></c>'):
        rewritten(
            tmp_path / "s.xlsx",
            "xl/worksheets/sheet1.xml",
            lambda data, cell=cell: data.replace(
                b"</sheetData>", f'<row r="1048576">{cell}</row></sheetData>'.encode()
            ),
        )
        if "<v>" not in cell:
            assert read(tmp_path / "s.xlsx") == READ, "it is styled, and holds nothing"
    assert "its cells reach to row 1048576 and column 16384, at most" in error_of(
        tmp_path / "s.xlsx"
    )

    stray = '<table:table-row table:number-rows-repeated="2000"><table:table-cell/>'
    stray += "</table:table-row><table:table-row>"
    stray += '<table:table-cell table:number-columns-repeated="6000"/>'
    stray += '<table:table-cell office:value-type="float" office:value="1"/></table:table-row>'
    ods(tmp_path / "s.ods", [HEADINGS, *ROWS], stray)
    assert "its cells reach to row 2004 and column 6001" in error_of(tmp_path / "s.ods")


def test_damaged_books_are_one_line(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
    xls(tmp_path / "s.xls", [HEADINGS, *ROWS])
    ods(tmp_path / "s.ods", [HEADINGS, *ROWS])
    for name in ("s.xlsx", "s.xls", "s.ods"):
        whole = (tmp_path / name).read_bytes()
        for kept in (0, 7, len(whole) // 3, len(whole) * 2 // 3):
            (tmp_path / name).write_bytes(whole[:kept])
            assert "cannot be read as a workbook" in error_of(tmp_path / name), (name, kept)
    for member in ("xl/workbook.xml", "xl/worksheets/sheet1.xml"):
        for change in (lambda data: data[: len(data) // 2], lambda data: None):
            miniatures.workbook(tmp_path / "s.xlsx", HEADINGS, ROWS)
            rewritten(tmp_path / "s.xlsx", member, change)
            assert "annotation sheet" in error_of(tmp_path / "s.xlsx"), member
    assert "no such file" in error_of(tmp_path / "none.ods")
    (tmp_path / "s.csv").write_bytes(bytes(range(256)))
    assert "looked for a row with the headings" in error_of(tmp_path / "s.csv")
