"""Clips of one's own with a sheet of one's own."""

import drawn
import miniatures
import pytest
from reading import error_of, notes, read, records, repairs

from ma2mi_jax.clips.faces import Detector, Face
from ma2mi_jax.datasets import annotated
from ma2mi_jax.datasets.common import frame_numbers

HEADINGS = ["subject", "clip", "onset", "apex", "label", "offset", "fps", "action units"]
ROWS = [
    ["anna", "anna/smile", 46, 49, "Happy", 55, 29.97, "6+12"],
    ["ben", "ben/one", 1, "", "surprise", "", "", ""],
]
CLIPS = {
    "anna/anna/smile": ("anna", "happiness", 10, 0, 3, 9, "6+12"),
    "ben/ben/one": ("ben", "surprise", 9, 0, 4, 8, ""),
}
SEES = Detector("fake", lambda image: [Face(160, 120, 100)])


@pytest.fixture
def root(tmp_path):
    data = tmp_path / "data"
    miniatures.clip(data / "anna" / "smile", range(46, 56), "img{}.jpg", 49)
    miniatures.clip(data / "ben" / "one", range(1, 10), "{:03d}.jpg", 5)
    return data


def write(root, *rows, headings=HEADINGS):
    text = "\n".join(",".join(map(str, row)) for row in (headings, *rows))
    (root / "annotations.csv").write_text(text + "\n", encoding="utf-8")


def reasons(found):
    return {each.id: each.reason for each in found.set_aside}


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_rows_with_numbers_of_frames(root, tmp_path, suffix):
    if suffix == ".csv":
        write(root, *ROWS)
    else:
        miniatures.workbook(root / "mine.xlsx", HEADINGS, ROWS)
    found = read("csv", root, tmp_path)
    assert records(found) == CLIPS
    assert [clip.fps for clip in found.clips] == [29.97, 0]
    assert (found.set_aside, found.classes) == ((), ("happiness", "surprise"))
    assert list(repairs(found, frame_numbers.APEX)) == ["ben/ben/one"], "and told"
    assert repairs(found, frame_numbers.BOUNDS) == {}, "an offset may be left out"
    assert notes(found, frame_numbers.REBASED) == []


def test_positions_are_understood_and_told(root, tmp_path):
    write(root, ["anna", "anna/smile", 1, 4, "happy", 10, "", "6+12"], ROWS[1])
    found = read("csv", root, tmp_path)
    assert found.clips[0].onset == 0
    assert found.clips[0].apex == 3
    told = {**repairs(found, frame_numbers.REBASED), **repairs(found, frame_numbers.STRAYS)}
    assert "+45" in told["anna/anna/smile"]


def test_a_video_counts_from_0_and_brings_its_rate(root, tmp_path):
    images = [drawn.face(160, 110, 120, mouth=i / 9) for i in range(9)]
    drawn.video(root / "films" / "eva.mp4", images, fps=20)
    write(root, *ROWS, ["eva", "films/eva.mp4", 0, 8, "surprise", "", "", ""])
    found = read("csv", root, tmp_path, detector=SEES)
    clip = found.clips[-1]
    assert (clip.id, clip.fps, clip.onset, clip.apex) == ("eva/films/eva.mp4", 20, 0, 8)
    assert notes(found, annotated.VIDEOS) == [f"{annotated.VIDEOS}: 1"]


def test_what_is_wrong_is_told_by_its_line(root, tmp_path):
    miniatures.clip(root / "ben" / "two", range(1, 10), "{}.jpg", 5)
    (tmp_path / "outside").mkdir()
    write(
        root,
        *ROWS,
        ["ben", "ben/one/", 1, 3, "sad", "", "", ""],
        ["carl", "carl/none", 1, 3, "sad", "", "", ""],
        [],
        ["BEN", "ben/two", 1, 5, "surprise", "", "", ""],
        ["dora", "../outside", 1, 5, "surprise", "", "", ""],
        ["", "ben", 1, 5, "surprise", "", "", ""],
    )
    found = read("csv", root, tmp_path)
    said = reasons(found)
    assert said["ben/ben/one/"].startswith("line 4: its clip stands on line 3 already")
    assert said["carl/carl/none"].startswith("line 5: no such folder of frames or video below")
    assert said["dora/../outside"].startswith("line 8: no such folder")
    assert said["/ben"] == "line 9: the subject, the clip or the label is empty"
    assert {clip.id: clip.subject for clip in found.clips} == {
        "anna/anna/smile": "anna",
        "ben/ben/one": "ben",
        "ben/ben/two": "ben",
    }
    assert repairs(found, annotated.SPELLED) == {"ben/ben/two": "line 7: 'BEN' is 'ben' of line 3"}


def test_subjects_of_two_datasets_are_two_persons(root, tmp_path):
    rows = [["1", "anna/smile", 46, 49, "a", "x"], ["1", "ben/one", 1, 5, "b", "y"]]
    write(root, *rows, headings=[*HEADINGS[:5], "dataset"])
    assert {clip.subject for clip in read("csv", root, tmp_path).clips} == {"x/1", "y/1"}


def test_a_sheet_that_says_too_little(root, tmp_path):
    assert "give the sheet as annotations" in error_of("csv", root, tmp_path)
    write(root, headings=["subject", "clip", "onset", "label"])
    assert "but line 1 lacks apex; add" in error_of("csv", root, tmp_path)
    write(root, ["x", "nothing", 1, 2, "happy", "", "", ""])
    said = error_of("csv", root, tmp_path)
    assert "none of the 1 rows" in said
    assert "line 2: no such folder" in said
    write(root)
    assert "there is none below the headings" in error_of("csv", root, tmp_path)


def test_blanks_around_the_names_of_clips_do_not_matter(root, tmp_path):
    film = drawn.video(root / "ben" / "film.mp4", [miniatures.person()] * 9)
    film.rename(root / "ben" / "film.mp4 ")
    (root / "anna" / "smile").rename(root / "anna" / " smile ")
    (root / "ben").rename(root / "ben ")
    write(root, *ROWS, ["ben", "ben/film.mp4", 0, 4, "surprise", "", "", ""])
    found = read("csv", root, tmp_path, detector=SEES)
    assert {clip.id for clip in found.clips} == {*CLIPS, "ben/ben/film.mp4"}


def test_clips_whose_names_differ_in_letter_case_alone_are_two(root, tmp_path):
    miniatures.clip(root / "anna" / "S1", range(1, 10), "{}.jpg", 5)
    miniatures.clip(root / "anna" / "s1", range(1, 10), "{}.jpg", 5)
    if len({entry.name.lower() for entry in (root / "anna").iterdir()}) > 2:
        pytest.skip("the file system does not tell letter case apart")
    rows = [["anna", f"anna/{name}", 1, 5, name + "!", "", "", ""] for name in ("S1", "s1")]
    write(root, *ROWS, *rows)
    found = read("csv", root, tmp_path)
    assert {c.id: c.frames.folder for c in found.clips if "s1" in c.id.lower()} == {
        "anna/anna/S1": str(root / "anna" / "S1"),
        "anna/anna/s1": str(root / "anna" / "s1"),
    }


def test_further_columns_with_a_digit_are_not_those_that_are_read(root, tmp_path):
    headings = [*HEADINGS[:5], "label2", "Apex 2"]
    rows = [["anna", "anna/smile", 46, 49, "happy", "sad", ""]]
    write(root, *rows, headings=headings)
    assert records(read("csv", root, tmp_path))["anna/anna/smile"][1:6] == (
        "happiness",
        10,
        0,
        3,
        9,
    )
    write(root, *rows, headings=[*HEADINGS[:5], "Label", "x"])
    assert "2 columns are called label, and only one" in error_of("csv", root, tmp_path)


def test_the_frames_of_a_video_count_from_0_however_the_others_do(root, tmp_path):
    """Two folders begin elsewhere, and the sheet counts from 1 in each of them."""
    images = [drawn.face(160, 110, 120, mouth=i / 20) for i in range(20)]
    drawn.video(root / "eva.mp4", images, fps=20)
    rows = []
    for name, first in (("x", 5001), ("y", 7001)):
        miniatures.clip(root / name, range(first, first + 20), "{:06d}.jpg", first + 9)
        rows.append([name, name, 3, 9, "happy", 15, "", ""])
    write(root, *rows, ["eva", "eva.mp4", 3, 9, "happy", 15, "", ""])
    found = read("csv", root, tmp_path, detector=SEES)
    places = {clip.id: (clip.onset, clip.apex, clip.offset) for clip in found.clips}
    assert places == {"eva/eva.mp4": (3, 9, 15), "x/x": (2, 8, 14), "y/y": (2, 8, 14)}
    assert set(repairs(found, frame_numbers.REBASED)) == {"x/x", "y/y"}


def test_the_integer_that_tells_frames_apart_is_their_number(root, tmp_path):
    """`000012_0.jpg` is frame 12 with the first face in it."""
    miniatures.clip(root / "eva", range(1, 31), "{:06d}_0.jpg", 15)
    miniatures.clip(root / "times", [], "{}.jpg")
    for at in range(30):
        miniatures.clip(root / "times", [at % 25], f"{at // 25}.{{:02d}}.jpg")
    row = [10, 15, "happy", 20, "", ""]
    write(root, *ROWS, ["eva", "eva", *row], ["tim", "times", *row])
    found = read("csv", root, tmp_path)
    [clip] = [clip for clip in found.clips if clip.subject == "eva"]
    assert (clip.onset, clip.apex, clip.offset) == (9, 14, 19)
    assert found.repairs == read("csv", root, tmp_path).repairs
    assert "0 is that of 0.00.jpg and 1.00.jpg; rename them" in reasons(found)["tim/times"]


def test_a_row_without_enough_frames_is_told_by_its_line(root, tmp_path):
    miniatures.clip(root / "eva", [1], "{}.jpg")
    write(root, *ROWS, ["eva", "eva", 1, 1, "happy", "", "", ""])
    said = reasons(read("csv", root, tmp_path))
    assert said == {"eva/eva": "line 4: onset and apex need two frames, its folder holds 1"}
