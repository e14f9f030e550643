"""The parts of the readers: the listing and its cache, positions of frames, estimated apices, sheets."""

import json
import os
import tempfile
import warnings

import hypothesis.strategies as st
import miniatures
import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings

from ma2mi_jax.clips import Clip, Repair
from ma2mi_jax.datasets import disk, micro, places, sheets
from ma2mi_jax.frames import ArrayFrames, frame_number

FAST = settings(max_examples=60, deadline=None)
NUMBERS = st.lists(st.integers(0, 20000), min_size=1, max_size=40, unique=True).map(sorted)
PREFIX = st.sampled_from(["", "img", "reg_img", "006_"])

# ------------------------------------------------------------------------------------------------------------------ the listing


@pytest.fixture
def tree(tmp_path):
    """Two clips, listed long after they were written."""
    for name in ("a", "b"):
        miniatures.clip(tmp_path / "data" / name, (1, 2, 10))
    settle(tmp_path / "data")
    return tmp_path / "data"


def settle(root, at=1_000_000_000):
    for path in [root, *[path for path in root.rglob("*") if path.is_dir()]]:
        os.utime(path, ns=(at * 10**9, at * 10**9))


@pytest.fixture
def listed(monkeypatch):
    """Names of the folders that are listed, in order."""
    names, scandir = [], os.scandir
    monkeypatch.setattr(disk.os, "scandir", lambda path: names.append(os.path.basename(path)) or scandir(path))
    return names


def clips(tree, tmp_path, depth=1):
    return {id: frames.names for id, frames in disk.clip_folders(str(tree), depth, cache=str(tmp_path / "cache")).items()}


def test_a_listing_is_kept_until_a_folder_changes(tree, tmp_path, listed):
    names = ("img1.jpg", "img2.jpg", "img10.jpg")
    assert clips(tree, tmp_path) == {"a": names, "b": names}
    assert sorted(listed) == ["a", "b", "data"]
    del listed[:]
    assert clips(tree, tmp_path) == {"a": names, "b": names}
    assert listed == []
    (tree / "b" / "img2.jpg").unlink()
    assert clips(tree, tmp_path)["b"] == ("img1.jpg", "img10.jpg")
    assert listed == ["b"]
    miniatures.clip(tree / "c", (7,))
    assert clips(tree, tmp_path)["c"] == ("img7.jpg",)


def test_a_folder_that_changed_just_now_is_listed_again(tree, tmp_path, listed):
    """A second change within one tick of the file system's clock would leave the same time behind."""
    now = disk.time.time_ns() // 10**9
    settle(tree, now)
    clips(tree, tmp_path)
    (tree / "a" / "img2.jpg").unlink()
    settle(tree, now)
    assert clips(tree, tmp_path)["a"] == ("img1.jpg", "img10.jpg")


@pytest.mark.parametrize("harm", [b"", b"PK\x03\x04 half an index"])
def test_an_index_that_was_cut_short_is_made_anew(tree, tmp_path, listed, harm):
    before = clips(tree, tmp_path)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(harm)
    assert clips(tree, tmp_path) == before
    assert file.read_bytes() == whole
    file.write_bytes(whole[: len(whole) // 2])
    assert clips(tree, tmp_path) == before


def test_junk_and_nested_folders_are_not_seen(tmp_path):
    data = tmp_path / "data"
    miniatures.clip(data / "a" / "a" / "one" / "one", (1, 2))
    (data / "a" / "a" / "two").mkdir(parents=True)
    miniatures.clip(data / "b" / "one", (3,))
    miniatures.litter(data)
    assert clips(data, tmp_path, depth=2) == {"a/one": ("img1.jpg", "img2.jpg"), "a/two": (), "b/one": ("img3.jpg",)}


@FAST
@given(numbers=NUMBERS, paddings=st.lists(st.integers(0, 6), min_size=1, max_size=5), prefix=PREFIX)
def test_frames_are_found_by_the_integer_in_their_names(numbers, paddings, prefix):
    names = {n: f"{prefix}{n:0{paddings[n % len(paddings)]}d}.jpg" for n in numbers}
    with tempfile.TemporaryDirectory() as folder:
        for name in names.values():
            open(os.path.join(folder, name), "wb").close()
        (found,) = disk.clip_folders(folder, 0, cache=folder).values()
    assert [frame_number(name) for name in found.names] == numbers
    for n in numbers:
        assert found.names[places.nearest(numbers, n)] == names[n]


def test_a_progress_of_listing(tree, tmp_path):
    done = []
    disk.clip_folders(str(tree), 1, cache=str(tmp_path / "cache"), progress=lambda *of: done.append(of))
    assert done == [(1, 1), (2, 2)]


def test_what_is_remembered_survives_an_interruption(tmp_path):
    file = tmp_path / "cache" / "found.json"

    def interrupted():
        with disk.remembered(str(file)) as found:
            found["a"] = [1, 2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(file.read_text()) == {"a": [1, 2]}
    file.write_text('{"a": [1')
    with disk.remembered(str(file)) as found:
        assert found == {}
    assert [path.name for path in file.parent.iterdir()] == ["found.json"]


def test_notes_are_short():
    repairs = [Repair(f"clip{i}", "odd", "x") for i in (1, 1, 2, 3, 4, 5, 6, 7)] + [Repair("clip1", "strange", "y")]
    assert disk.notes_of(repairs) == ("odd: 7 (clip1, clip2, clip3, clip4, clip5 and 2 more)", "strange: 1 (clip1)")


# ---------------------------------------------------------------------------------------------------------- positions of frames


@FAST
@given(numbers=NUMBERS, wanted=st.integers(-5, 20005))
def test_the_nearest_frame(numbers, wanted):
    found = places.nearest(numbers, wanted)
    distances = [abs(n - wanted) for n in numbers]
    assert found == distances.index(min(distances))


NUMBER = st.none() | st.integers(0, 20005)


@settings(max_examples=300, deadline=None)
@given(numbers=NUMBERS, onset=NUMBER, apex=NUMBER, offset=NUMBER, rebases=st.booleans())
def test_every_row_finds_a_place(numbers, onset, apex, offset, rebases):
    place = places.locate(numbers, onset, apex, offset, rebases=rebases)
    assert 0 <= place.onset < len(numbers)
    assert place.onset <= place.offset < len(numbers)
    assert place.apex == -1 or place.onset < place.apex <= place.offset
    kinds = [kind for kind, _ in place.faults]
    assert len(set(kinds)) == len(kinds)
    assert (places.APEX in kinds) == (place.apex == -1)
    if not kinds:
        assert [numbers[i] for i in place[:3]] == [onset, apex, offset], "no silence about a frame that is not the sheet's"


@FAST
@given(data=st.data(), count=st.integers(8, 200), shift=st.integers(300, 9000))
def test_a_sheet_that_counts_from_elsewhere_is_rebased(data, count, shift):
    onset = data.draw(st.integers(1, count - 2))
    offset = data.draw(st.integers(onset + 2, count))
    apex = data.draw(st.integers(onset + 1, offset))
    true = places.locate(range(1, count + 1), onset, apex, offset, rebases=True)
    assert true == (onset - 1, apex - 1, offset - 1, ())
    absolute = places.locate(range(1 + shift, count + 1 + shift), onset, apex, offset, rebases=True)
    assert absolute == (*true[:3], ((places.REBASED, f"by {shift:+d}"),)), "a sheet of the clip's own numbers"
    begins = places.locate(range(1, offset - onset + 2), onset + shift, apex + shift, offset + shift, rebases=True)
    assert begins[:3] == (0, apex - onset, offset - onset), "files from 1 on, which begin with the onset"
    assert [kind for kind, _ in begins.faults] == [places.REBASED]


def test_rebasing_is_not_for_every_dataset_nor_for_a_few_absent_frames():
    assert places.locate(range(1, 13), 1480, 1488, 1491)[:3] == (11, -1, 11)
    few = places.locate(range(5, 61), 3, 20, 50, rebases=True)
    assert few == (0, 15, 45, ((places.ABSENT, "onset 3 → 5"),))


def test_a_wrong_offset_does_not_rebase():
    assert places.locate(range(1, 46), 1, 20, 300, rebases=True) == (0, 19, 44, ((places.ABSENT, "offset 300 → 45"),))


# ---------------------------------------------------------------------------------------------------------- estimated apices


@settings(max_examples=25, deadline=None)
@given(greys=st.lists(st.integers(0, 255), min_size=2, max_size=8), data=st.data())
def test_an_estimated_apex_differs_most_from_the_onset(greys, data):
    onset = data.draw(st.integers(0, len(greys) - 1))
    offset = data.draw(st.integers(onset, len(greys) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "frames.npy")
        np.save(path, np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(greys), 8, 8, 3)))
        apex = micro.estimate_apex(Clip("a", ArrayFrames(path, 0, len(greys)), onset=onset, offset=offset))
    allowed = range(onset + 1, offset + 1) or range(onset + 1, len(greys)) or range(onset)
    assert apex in allowed
    change = [abs(grey - greys[onset]) for grey in greys]
    assert change[apex] == max(change[i] for i in allowed)
    assert apex == next(i for i in allowed if change[i] == change[apex]), "of several the first"


def test_an_apex_among_unreadable_frames(tmp_path):
    miniatures.clip(tmp_path / "a", range(1, 8), peak=6)
    (found,) = disk.clip_folders(str(tmp_path / "a"), 0, cache=str(tmp_path)).values()
    clip = Clip("a", found, onset=0, offset=6)
    assert micro.estimate_apex(clip) == 5
    (tmp_path / "a" / "img6.jpg").write_bytes(b"")
    assert micro.estimate_apex(clip) in (4, 6)
    (tmp_path / "a" / "img1.jpg").write_bytes(b"broken")
    assert micro.estimate_apex(clip) == 4, "without an onset to compare with, the middle"


# --------------------------------------------------------------------------------------------------------------------- sheets


def test_a_sheet_is_text_whatever_its_cells_are(tmp_path):
    headings = ["Subject ", "File name", "Onset Frame", "ApexFrame", "offset_frame", None, "Estimated  Emotion"]
    rows = [
        [1, " a ", 5.0, "/", None, "ignored", " Happiness"],
        [None] * 7,
        ["006", None, 1, 2, 3, None, "x"],
        [2, 3.5, "7", 1, 2, 0, True],
    ]
    miniatures.workbook(tmp_path / "s.xlsx", headings, rows, preamble=13)
    assert sheets.read(str(tmp_path / "s.xlsx")) == [
        {"subject": "1", "filename": "a", "onsetframe": "5", "apexframe": "/", "offsetframe": "", "estimatedemotion": "Happiness"},
        {"subject": "2", "filename": "3.5", "onsetframe": "7", "apexframe": "1", "offsetframe": "2", "estimatedemotion": "True"},
    ]
    assert [sheets.whole(text) for text in ("12", "/", "", "1.5", "-3", "four")] == [12, None, None, None, None, None]


def test_the_header_may_stand_on_another_page(tmp_path):
    miniatures.workbook(tmp_path / "s.xlsx", ["About"], [])
    book = openpyxl.load_workbook(tmp_path / "s.xlsx")
    page = book.create_sheet("Codes")
    page.append([*sheets.REQUIRED])
    page.append([1, "a", 2, 3, 4, "fear"])
    book.save(tmp_path / "s.xlsx")
    assert [row["filename"] for row in sheets.read(str(tmp_path / "s.xlsx"))] == ["a"]


def test_what_openpyxl_does_not_know_is_no_warning(tmp_path, monkeypatch):
    miniatures.workbook(tmp_path / "s.xlsx", [*sheets.REQUIRED], [[1, "a", 2, 3, 4, "fear"]])
    load = openpyxl.load_workbook

    def warning(*arguments, **options):
        warnings.warn_explicit("Data Validation extension is not supported", UserWarning, "_reader.py", 1, "openpyxl.worksheet._reader")
        return load(*arguments, **options)

    monkeypatch.setattr(openpyxl, "load_workbook", warning)
    assert len(sheets.read(str(tmp_path / "s.xlsx"))) == 1
