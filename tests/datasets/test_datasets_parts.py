"""The parts of the readers: the listing and its cache, positions of frames, estimated
apices."""

import json
import os
import tempfile

import hypothesis.strategies as st
import miniatures
import numpy as np
import pytest
from hypothesis import given, settings

from ma2mi_jax.clips.clip import Clip, Repair
from ma2mi_jax.clips.frames import ArrayFrames, frame_number
from ma2mi_jax.datasets.common import disk, frame_numbers, listing, micro

FAST = settings(max_examples=60, deadline=None)
NUMBERS = st.lists(st.integers(0, 20000), min_size=1, max_size=40, unique=True).map(sorted)
PREFIX = st.sampled_from(["", "img", "reg_img", "006_"])

# -------------------------------------------------------------------------------------- the listing


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
    monkeypatch.setattr(
        disk.os, "scandir", lambda path: names.append(os.path.basename(path)) or scandir(path)
    )
    return names


def clips(tree, tmp_path, depth=1):
    return {
        id: frames.names
        for id, frames in listing.clip_folders(
            str(tree), depth, cache=str(tmp_path / "cache")
        ).items()
    }


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
    """A second change within one tick of the file system's clock would leave the same time
    behind."""
    now = listing.time.time_ns() // 10**9
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
    assert clips(data, tmp_path, depth=2) == {
        "a/one": ("img1.jpg", "img2.jpg"),
        "a/two": (),
        "b/one": ("img3.jpg",),
    }


@FAST
@given(numbers=NUMBERS, paddings=st.lists(st.integers(0, 6), min_size=1, max_size=5), prefix=PREFIX)
def test_frames_are_found_by_the_integer_in_their_names(numbers, paddings, prefix):
    names = {n: f"{prefix}{n:0{paddings[n % len(paddings)]}d}.jpg" for n in numbers}
    with tempfile.TemporaryDirectory() as folder:
        for name in names.values():
            open(os.path.join(folder, name), "wb").close()
        (found,) = listing.clip_folders(folder, 0, cache=folder).values()
    assert [frame_number(name) for name in found.names] == numbers
    for n in numbers:
        assert found.names[frame_numbers.nearest(numbers, n)] == names[n]


def test_a_progress_of_listing(tree, tmp_path):
    done = []
    listing.clip_folders(
        str(tree), 1, cache=str(tmp_path / "cache"), progress=lambda *of: done.append(of)
    )
    assert done == [(1, 1), (2, 2)]


def test_what_is_remembered_survives_an_interruption(tmp_path, caplog):
    file = tmp_path / "cache" / "found.json"

    def interrupted():
        with disk.remembered(str(file)) as found:
            found["a"] = [1, 2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(file.read_text()) == {"a": [1, 2]}
    for damaged in (b'{"a": [1', b"[1]", b"\xff\xfe\x00"):
        caplog.clear()
        file.write_bytes(damaged)
        with disk.remembered(str(file)) as found:
            assert found == {}
            found["a"] = 1
        assert f"{file}: thrown away and made again" in caplog.text
        assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["found.json"]


def test_notes_are_short():
    repairs = [Repair(f"clip{i}", "odd", "x") for i in (1, 1, 2, 3, 4, 5, 6, 7)] + [
        Repair("clip1", "strange", "y")
    ]
    assert disk.notes_of(repairs) == (
        "odd: 7 (clip1, clip2, clip3, clip4, clip5 and 2 more)",
        "strange: 1 (clip1)",
    )


# ------------------------------------------------------------------------------ positions of frames


@FAST
@given(numbers=NUMBERS, wanted=st.integers(-5, 20005))
def test_the_nearest_frame(numbers, wanted):
    found = frame_numbers.nearest(numbers, wanted)
    distances = [abs(n - wanted) for n in numbers]
    far = max(numbers[0] - wanted, wanted - numbers[-1]) > frame_numbers.CLOSE
    assert found == (-1 if far else distances.index(min(distances)))


NUMBER = st.none() | st.integers(0, 20005)
SAME, FROM_ONE, FROM_ONSET = frame_numbers.COUNTINGS
COUNTS = st.sampled_from([SAME, FROM_ONE, FROM_ONSET])


@settings(max_examples=300, deadline=None)
@given(numbers=NUMBERS, onset=NUMBER, apex=NUMBER, offset=NUMBER, counts=st.none() | COUNTS)
def test_every_row_finds_a_place(numbers, onset, apex, offset, counts):
    place = frame_numbers.locate(numbers, onset, apex, offset, counts=counts)
    assert 0 <= place.onset < len(numbers)
    assert place.onset <= place.offset < len(numbers)
    assert place.apex == -1 or place.onset < place.apex <= place.offset
    kinds = [kind for kind, _ in place.faults]
    assert len(set(kinds)) == len(kinds)
    assert (frame_numbers.APEX in kinds) == (place.apex == -1)
    if not kinds:
        assert [numbers[i] for i in place[:3]] == [onset, apex, offset], (
            "no silence about a frame that is not the sheet's"
        )


@st.composite
def rows(draw, counts):
    """Files, what a sheet that counts so says of them (onset, apex, offset), and the true positions
    of the three."""
    count, shift = draw(st.integers(8, 200)), draw(st.integers(300, 9000))
    onset = draw(st.integers(0, count - 3))
    offset = draw(st.integers(onset + 2, count - 1))
    true = (onset, draw(st.integers(onset + 1, offset)), offset)
    if counts == FROM_ONSET:
        true = tuple(position - onset for position in true)
        return range(1, count + 1), tuple(position + shift for position in true), true
    first = shift if counts == FROM_ONE else draw(st.sampled_from([1, shift]))
    return (
        range(first, first + count),
        tuple(position + (first if counts == SAME else 1) for position in true),
        true,
    )


@FAST
@given(data=st.data(), counts=COUNTS, many=st.integers(1, 8))
def test_a_sheet_is_rebased_as_most_of_its_rows_count(data, counts, many):
    """Against a minority with a wrong offset or apex, which as rows alone could be read in other
    ways."""
    right = [data.draw(rows(counts)) for _ in range(many)]
    wrong = []
    for _ in range(many - 1):
        files, (onset, apex, offset), true = data.draw(rows(counts))
        if data.draw(st.booleans()):
            wrong.append(
                (files, (onset, apex, offset + data.draw(st.integers(1, 9000))), (*true[:2], None))
            )
        else:
            wrong.append(
                (
                    files,
                    (onset, offset + data.draw(st.integers(1, 9000)), offset),
                    (true[0], -1, true[2]),
                )
            )
    votes = frame_numbers.counting(
        (files, sheet[0], sheet[2]) for files, sheet, _ in data.draw(st.permutations(right + wrong))
    )
    assert next(iter(votes)) == counts
    assert many <= votes[counts] <= sum(votes.values()) <= 2 * many - 1
    for files, sheet, true in right + wrong:
        place = frame_numbers.locate(files, *sheet, counts=counts)
        shift = files[true[0]] - sheet[0]
        expected = len(files) - 1
        if true[2] is not None or sheet[2] + shift <= files[-1]:
            expected = sheet[2] + shift - files[0]
        assert place[:3] == (*true[:2], expected)
        faults = dict(place.faults)
        assert faults.get(frame_numbers.REBASED) == (f"by {shift:+d}" if shift else None)
        assert frame_numbers.STRAYS not in faults
        beyond = sheet[2] + shift - files[-1]
        assert (frame_numbers.ABSENT in faults) == (0 < beyond <= frame_numbers.CLOSE)
        assert (frame_numbers.BOUNDS in faults) == (beyond > frame_numbers.CLOSE)


@FAST
@given(data=st.data(), counts=COUNTS, own=COUNTS)
def test_a_row_that_has_no_place_as_the_sheet_counts_is_an_exception(data, counts, own):
    files, sheet, true = data.draw(rows(own))
    place, faults = frame_numbers.locate(files, *sheet, counts=counts), {}
    shift, right = frame_numbers.COUNTINGS[counts](files[0], sheet[0]), files[true[0]] - sheet[0]
    placed = files[0] - frame_numbers.CLOSE <= sheet[0] + shift <= files[-1] + frame_numbers.CLOSE
    if placed and counts != FROM_ONSET:
        faults = {frame_numbers.REBASED: f"by {shift:+d}"} if shift else {}
    elif shift == right:
        faults = {frame_numbers.REBASED: f"by {right:+d}"} if right else {}
    else:
        faults = {frame_numbers.STRAYS: f"by {right:+d}: {own}"}
    assert {
        kind: what
        for kind, what in place.faults
        if kind in (frame_numbers.REBASED, frame_numbers.STRAYS)
    } == faults
    if shift == right or frame_numbers.STRAYS in faults:
        assert place[:3] == true
    else:
        assert place[0] == frame_numbers.nearest(files, sheet[0] + shift)


def test_a_row_alone_does_not_tell_a_wrong_offset_from_another_count():
    files, wrong = (
        range(1, 46),
        (20, 30, 60),
    )  # the offset is 40: as the files would begin with the onset, 1 ... 41 fits
    assert frame_numbers.counting([(files, 20, 60)]) == {FROM_ONSET: 1, SAME: 0, FROM_ONE: 0}
    sheet = [(files, 20, 60), (files, 1, 45), (files, 3, 30)]
    assert frame_numbers.counting(sheet) == {SAME: 2, FROM_ONSET: 1, FROM_ONE: 0}
    assert frame_numbers.locate(files, *wrong, counts=SAME) == (
        19,
        29,
        44,
        ((frame_numbers.BOUNDS, "offset 60 lies outside the files, 1 to 45"),),
    )
    assert frame_numbers.locate(files, *wrong, counts=FROM_ONSET)[:3] == (0, 10, 40)


def test_what_says_nothing_has_no_vote():
    files = range(1, 11)
    silent = [(files, None, 5), (files, 5, None), (files, 5, 5), (files, 6, 2), (files, 500, 600)]
    assert frame_numbers.counting(silent) == {SAME: 0, FROM_ONE: 0, FROM_ONSET: 0}
    assert list(frame_numbers.counting([*silent, (range(700, 710), 1, 10), (files, 1, 10)])) == [
        SAME,
        FROM_ONE,
        FROM_ONSET,
    ], "ties go to the first"


def test_rebasing_is_not_for_every_dataset_nor_for_a_few_absent_frames():
    assert frame_numbers.locate(range(1, 13), 1480, 1488, 1491)[:3] == (0, -1, 11)
    few = frame_numbers.locate(range(5, 61), 3, 20, 50, counts=SAME)
    assert few == (0, 15, 45, ((frame_numbers.ABSENT, "onset 3 → 5"),))
    assert frame_numbers.counting([(range(5, 61), 3, 50)])[SAME] == 1


def test_an_apex_beyond_the_files_is_never_the_last_file():
    """As in sixteen rows of a public sheet of MMEW: apex and offset are both wrong."""
    place = frame_numbers.locate(range(1, 76), 1, 140, 175, counts=SAME)
    assert place[:3] == (0, -1, 74)
    assert dict(place.faults) == {
        frame_numbers.APEX: "apex 140 lies outside the files, 1 to 75",
        frame_numbers.BOUNDS: "offset 175 lies outside the files, 1 to 75",
    }


def test_an_apex_a_few_frames_beyond_the_files_is_the_nearest():
    files, reach = range(1, 76), 75 + frame_numbers.CLOSE
    assert frame_numbers.locate(files, 1, reach, reach)[:3] == (0, 74, 74)
    assert frame_numbers.locate(files, 1, reach + 1, reach + 1)[:3] == (0, -1, 74)


def test_a_row_without_an_onset_is_rebased_where_that_needs_none():
    """Where the sheet counts from 1 in each clip, the first file says by how much."""
    place = frame_numbers.locate(range(5001, 5031), None, 9, 15, counts=FROM_ONE)
    assert place[:3] == (0, 8, 14)
    assert dict(place.faults)[frame_numbers.REBASED] == "by +5000"
    assert frame_numbers.locate(range(5001, 5031), None, 9, 15, counts=FROM_ONSET)[:2] == (0, -1)


def test_an_onset_outside_the_files_is_the_first_of_them():
    place = frame_numbers.locate(range(1, 76), 300, 40, None)
    assert place[:3] == (0, 39, 74)
    assert dict(place.faults) == {
        frame_numbers.BOUNDS: "no offset; onset 300 lies outside the files, 1 to 75"
    }
    place = frame_numbers.locate(range(101, 176), 20, 140, 160)
    assert place[:3] == (0, 39, 59)
    assert dict(place.faults) == {
        frame_numbers.BOUNDS: "onset 20 lies outside the files, 101 to 175"
    }


# --------------------------------------------------------------------------------- estimated apices


@settings(max_examples=25, deadline=None)
@given(greys=st.lists(st.integers(0, 255), min_size=2, max_size=8), data=st.data())
def test_an_estimated_apex_differs_most_from_the_onset(greys, data):
    onset = data.draw(st.integers(0, len(greys) - 1))
    offset = data.draw(st.integers(onset, len(greys) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "frames.npy")
        np.save(
            path,
            np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(greys), 8, 8, 3)),
        )
        apex = micro.estimate_apex(
            Clip("a", ArrayFrames(path, 0, len(greys)), onset=onset, offset=offset)
        )
    allowed = range(onset + 1, offset + 1) or range(onset + 1, len(greys)) or range(onset)
    assert apex in allowed
    change = [abs(grey - greys[onset]) for grey in greys]
    assert change[apex] == max(change[i] for i in allowed)
    assert apex == next(i for i in allowed if change[i] == change[apex]), "of several the first"


def test_an_apex_among_unreadable_frames(tmp_path):
    miniatures.clip(tmp_path / "a", range(1, 8), peak=6)
    (found,) = listing.clip_folders(str(tmp_path / "a"), 0, cache=str(tmp_path)).values()
    clip = Clip("a", found, onset=0, offset=6)
    assert micro.estimate_apex(clip) == 5
    (tmp_path / "a" / "img6.jpg").write_bytes(b"")
    assert micro.estimate_apex(clip) in (4, 6)
    (tmp_path / "a" / "img1.jpg").write_bytes(b"broken")
    assert micro.estimate_apex(clip) == 4, "without an onset to compare with, the middle"
