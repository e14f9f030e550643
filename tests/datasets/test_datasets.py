"""The readers on miniature copies of their datasets, record by record; then what is told when
something is not there."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import drawn
import miniatures
import pytest
from reading import error_of, notes, read, records, repairs

from ma2mi_jax.clips import faces, frames, yunet_model
from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.clips.clip import SetAside
from ma2mi_jax.clips.frames import Box, ImageFolder, read_frame
from ma2mi_jax.datasets import (
    afew,
    casme,
    casme2,
    casme3,
    casme_sq,
    dfew,
    dfme,
    ferv39k,
    fourdme,
    mafw,
    mmew,
    registry,
    samm,
    smic,
)
from ma2mi_jax.datasets.common import disk, frame_numbers, macro, micro
from ma2mi_jax.datasets.drawn import synthetic
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError

READERS = (
    *(dfew, ferv39k, afew, mafw),
    *(casme2, samm, mmew, smic, casme, casme_sq, casme3, dfme, fourdme),
)
SHOWN = {module.READER.name: module.SHOWN for module in READERS}
BUILD = {**miniatures.ALL, "casme2": lambda root: miniatures.casme2(root, 2019)}
MACRO = ("dfew", "ferv39k", "afew", "mafw")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


# -------------------------------------------------------------------------------- macro-expressions


def test_labels_mean_the_same_in_every_source(tmp_path):
    assert tuple(synthetic.EMOTIONS) == macro.EMOTIONS
    for name in MACRO:
        BUILD[name](tmp_path / name)
        assert read(name, tmp_path / name, tmp_path).classes == macro.EMOTIONS


def test_dfew(root, tmp_path):
    miniatures.dfew(root)
    source = read("dfew", root, tmp_path)
    clips = root / "Clip" / "clip_224x224" / "clip_224x224"
    assert [(c.id, c.label, len(c.frames), c.frames.folder, c.box) for c in source.clips] == [
        (id, label, count, str(clips / id), None)
        for id, label, count in (
            ("00001", 0, 11),
            ("00002", 3, 12),
            ("00003", 6, 2),
            ("00012", -1, 3),
        )
    ]
    assert source.clips[0].frames.names == tuple(f"{n}.jpg" for n in range(1, 12)), (
        "the order of numbers, not of letters"
    )
    assert source.set_aside == (
        SetAside("00004", "a pair needs two frames, its folder holds 1"),
        SetAside("00005", "a pair needs two frames, its folder holds 0"),
        SetAside("00006", "in the dataset's lists, but there is no such folder of frames"),
    )
    assert source.notes == (
        "6 clips on disk, published 16372",
        "clips without a label: 1",
        "read: frames in clip_224x224",
        "lines of the lists that name no clip or no label of 1 ... 7: 2",
    )


@pytest.mark.parametrize(
    "lists",
    [
        "EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv",
        "EmoLabel_DataSplit/{}/set_{}.csv",
        "EmoLabel_DataSplit/{}_set_{}.csv",
    ],
)
def test_dfew_by_its_splits(root, tmp_path, lists):
    miniatures.dfew(root, f"EmoLabel_DataSplit/{lists}")
    source = read("dfew", root, tmp_path, split="train_1")
    assert [(clip.id, clip.label) for clip in source.clips] == [("00001", 0), ("00002", 3)]
    assert source.set_aside == ()
    assert source.notes[0] == "split train_1: 2 of 6 clips"
    assert [clip.id for clip in read("dfew", root, tmp_path, split="test_1").clips] == ["00003"]
    assert (
        "split=train_9: source=dfew has no such split; give test_1, test_2, train_1, train_2,"
        in error_of("dfew", root, tmp_path, split="train_9")
    )


def test_dfew_without_lists(root, tmp_path):
    miniatures.dfew(root)
    shutil.rmtree(root / "EmoLabel_DataSplit")
    assert {clip.label for clip in read("dfew", root, tmp_path).clips} == {-1}
    assert "split=train_1: no list of a split lies beside the clips of source=dfew" in error_of(
        "dfew", root, tmp_path, split="train_1"
    )


def test_dfew_never_takes_frames_that_are_interpolated_in_time(root, tmp_path):
    miniatures.dfew(root)
    shutil.rmtree(root / "Clip" / "clip_224x224")
    assert "found only clip_224x224_16f" in error_of("dfew", root, tmp_path)


def test_ferv39k(root, tmp_path):
    miniatures.ferv39k(root)
    source = read("ferv39k", root, tmp_path)
    assert source.name == "ferv39k"
    labelled = {
        "Action/Happy/0267": ("happy", 8),
        "Action/Sad/0003": ("fear", 47),
        "Daily/Happy/0009": ("happy", 2),
    }
    assert {c.id: (source.classes[c.label], len(c.frames)) for c in source.clips} == labelled
    assert {each.id for each in source.set_aside} == {"Action/Fear/0005", "Daily/Neutral/0001"}
    assert source.notes == (
        "4 clips on disk, published 38935",
        "clips whose label differs between list and list, or list and folder: 1 (Action/Sad/0003)",
        "read: frames in 2_ClipsforFaceCrop",
        "lines of the lists that name no clip or no emotion: 1",
    )
    of_split = {
        split: [c.id for c in read("ferv39k", root, tmp_path, split=split).clips]
        for split in ("train", "train_Action")
    }
    assert of_split == {
        "train": ["Action/Happy/0267", "Action/Sad/0003"],
        "train_Action": ["Action/Happy/0267"],
    }


def test_afew(root, tmp_path):
    miniatures.afew(root)
    done = []
    source = read("afew", root, tmp_path, progress=lambda *of: done.append(of))
    labels = {c.id: (c.label, len(c.frames)) for c in source.clips}
    angry, surprise = macro.EMOTIONS.index("angry"), macro.EMOTIONS.index("surprise")
    assert labels == {
        **{"train/001": (angry, 4), "train/002": (angry, 9), "train/006": (angry, 9)},
        **{"train/003": (-1, 2), "val/001": (surprise, 16)},
    }
    assert source.set_aside == (
        SetAside(
            "train/004",
            "a pair needs two frames, its folder of faces holds 1, and its video is not there",
        ),
        SetAside("train/005", "no frame could be decoded"),
    )
    assert source.notes == (
        "6 clips in Train_AFEW, published 773",
        "1 clips in Val_AFEW, published 383",
        "clips taken as aligned faces: 3",
        "clips decoded from their videos and cropped: 2",
        "clips without a label, for their videos are not there: 1",
        f"faces are found by haar: {yunet_model.FILE} is in no cache and cannot be had from the "
        "hub (OfflineModeIsEnabled)",
    )
    assert source.detector == "haar"
    assert done[-1] == (3, 3)
    decoded = next(clip for clip in source.clips if clip.id == "train/002")
    assert decoded.fps == 25
    (face,) = faces.haar()(faces.cv2.resize(read_frame(decoded.frames, 4), (200, 200)))
    assert abs(face.x - 100) + abs(face.y - 100) < 30, "the video's frames are cropped to the face"
    assert [clip.id for clip in read("afew", root, tmp_path, split="val").clips] == ["val/001"]
    assert "split=test: source=afew has no such split; give train, val," in error_of(
        "afew", root, tmp_path, split="test"
    )


# -------------------------------------------------------------------------------- micro-expressions

CASME2 = {
    "sub01/EP02_01f": ("sub01", "happiness", 11, 0, 5, 10, "12"),
    "sub01/EP03_02": ("sub01", "disgust", 27, 0, 18, 26, "(R6 or R12)+R15"),
    "sub02/EP06_01f": ("sub02", "repression", 11, 0, 7, 10, "4"),
    "sub02/EP06_02f": ("sub02", "surprise", 9, 0, 5, 8, "10A/B"),
    "sub04/EP12_01f": ("sub04", "others", 31, 0, 9, 30, "4+R10"),
    "sub05/EP09_05f": ("sub05", "others", 11, 0, 6, 10, "?"),
    "sub06/EP01_01": ("sub06", "surprise", 6, 0, 3, 5, "1+2"),
}


@pytest.mark.parametrize("editions", [(2014, 2019), (2019,)])
def test_casme2_by_the_sheet_of_2019(root, tmp_path, editions):
    miniatures.casme2(root, *editions)
    source = read("casme2", root, tmp_path)
    assert source.annotations == "CASME2-coding-20190701.xlsx"
    assert records(source) == CASME2
    assert [clip.id for clip in source.clips] == sorted(CASME2)
    assert {(clip.fps, clip.box) for clip in source.clips} == {(200, None)}, (
        "cropped frames are taken as they are"
    )
    assert source.clips[0].frames.names[:6] == tuple(f"reg_img{n}.jpg" for n in range(95, 101))
    assert source.set_aside == (
        SetAside("sub02/EP06_02f", "listed twice in the sheet: only the first row counts"),
        SetAside("sub03/EP01_01", "in the sheet, but there is no such folder of frames"),
    )
    assert repairs(source, frame_numbers.ABSENT) == {"sub01/EP03_02": "apex 30 → 32"}
    assert repairs(source, frame_numbers.BOUNDS) == {
        "sub02/EP06_02f": "offset 15 is not after onset 20"
    }
    assert repairs(source, micro.KNOWN) == {
        "sub04/EP12_01f": "apexframe / → 279: the sheet gives no apex; 279 is commonly used"
    }
    assert repairs(source, frame_numbers.APEX) == {
        "sub02/EP06_01f": "apex 99 lies outside the files, 20 to 30; reg_img27.jpg taken",
        "sub05/EP09_05f": "apex 7 is not after onset 7 and up to offset 17; reg_img13.jpg taken",
    }
    assert source.notes == (
        "frames of the sheet absent on disk, the nearest taken: 1 (sub01/EP03_02)",
        "apex missing or impossible, the frame that differs most from the onset taken: 2 "
        "(sub02/EP06_01f, sub05/EP09_05f)",
        "onset or offset missing or impossible, the clip's first or last frame taken: 1 "
        "(sub02/EP06_02f)",
        "known faults of the sheet, answered as corrections.py says: 1 (sub04/EP12_01f)",
        "rows of other emotions, which the protocol leaves out: 2 (fear 1, none given 1)",
        "clips on disk that the sheet does not list: 1 (sub07/EP09_09)",
        "N = 7, published 249; classes that differ: happiness 1 (published 32), disgust 1 "
        "(published 63), repression 1 (published 27), "
        "surprise 2 (published 28), others 2 (published 99)",
    )


def test_casme2_by_the_sheet_of_2014(root, tmp_path):
    miniatures.casme2(root, 2014, 2019)
    source = read("casme2", root, tmp_path, annotations=str(root / "CASME2-coding-20140508.xlsx"))
    assert source.annotations == "CASME2-coding-20140508.xlsx"
    assert records(source) == {id: record for id, record in CASME2.items() if id != "sub06/EP01_01"}
    assert (
        source.notes[0]
        == "the sheet of 2014, by which N is 246: the paper's 249 is by that of 2019"
    )
    assert "surprise 1 (published 25)" in source.notes[-1]


def test_a_copy_that_its_authors_have_mended_stays_as_it_is(root, tmp_path):
    miniatures.casme2(root, 2019)
    row = ["04", "EP12_01f", None, 261, 291, 321, None, "4", "others"]
    miniatures.workbook(root / "CASME2-coding-20190701.xlsx", miniatures.CASME2_HEADINGS, [row])
    source = read("casme2", root, tmp_path)
    assert records(source) == {"sub04/EP12_01f": ("sub04", "others", 31, 0, 15, 30, "4")}
    assert source.repairs == ()


def test_an_estimated_apex_is_kept_until_the_clip_changes(root, tmp_path, monkeypatch):
    miniatures.casme2(root, 2019)
    first, estimated, estimate = read("casme2", root, tmp_path), [], micro.estimate_apex
    monkeypatch.setattr(
        micro, "estimate_apex", lambda clip, *_: estimated.append(clip.id) or estimate(clip)
    )
    assert read("casme2", root, tmp_path) == first
    assert estimated == []
    miniatures.clip(root / "Cropped" / "Cropped" / "sub05" / "EP09_05f", [18], "reg_img{}.jpg")
    read("casme2", root, tmp_path)
    assert estimated == ["sub05/EP09_05f"]


def test_what_a_disk_did_not_answer_is_asked_again(root, tmp_path, monkeypatch):
    """Raw frames that cannot be read for once are no face crops for good."""
    miniatures.samm(root)
    sees = faces.Detector("fake", lambda image: [faces.Face(160, 120, 100)])
    first = read("samm", root, tmp_path / "first", detector=sees)
    read_file = frames.read_file

    def flaky(path):
        if "006_1_2" in path:
            raise frames.Unreachable(f"{path}: cannot be read: Input/output error")
        if "028_4_1" in path and not path.endswith(("1100.jpg", "1110.jpg")):
            raise frames.Unreachable(f"{path}: cannot be read: Input/output error")
        return read_file(path)

    monkeypatch.setattr(frames, "read_file", flaky)
    without = read("samm", root, tmp_path / "second", detector=sees)
    assert set(without.set_aside) - set(first.set_aside) == {SetAside("006/006_1_2", micro.UNREAD)}
    monkeypatch.setattr(frames, "read_file", read_file)
    assert read("samm", root, tmp_path / "second", detector=sees) == first


def test_a_class_of_the_published_size_is_not_told(root, tmp_path, monkeypatch):
    miniatures.casme2(root, 2019)
    counts = {"happiness": 1, "disgust": 1, "repression": 1, "surprise": 2, "others": 2}
    monkeypatch.setattr(casme2, "TRAITS", dataclasses.replace(casme2.TRAITS, published=counts))
    assert notes(read("casme2", root, tmp_path), "N =") == []
    more = dataclasses.replace(casme2.TRAITS, published=counts | {"disgust": 3})
    monkeypatch.setattr(casme2, "TRAITS", more)
    assert notes(read("casme2", root, tmp_path), "N =") == [
        "N = 7, published 9; classes that differ: disgust 1 (published 3)"
    ]


@pytest.mark.parametrize("frames", ["CASME2_RAW_selected/CASME2_RAW_selected", "CASME2-RAW"])
def test_casme2_raw_goes_through_the_face_crop(root, tmp_path, frames):
    miniatures.casme2(root, 2019, frames=frames)
    looked = []

    def look(image):
        looked.append(image)
        return faces.haar()(image)

    detector = faces.Detector("counting", look)
    source = read("casme2", root, tmp_path, detector=detector)
    assert [record[:4] for record in records(source).values()] == [
        record[:4] for record in CASME2.values()
    ]
    boxes = {clip.id: clip.box for clip in source.clips}
    beside, face, others = (
        boxes.pop("sub01/EP03_02"),
        boxes.pop("sub02/EP06_02f"),
        boxes.pop("sub05/EP09_05f"),
    )
    for box in (
        *boxes.values(),
        face,
    ):  # brows 17 px above (160, 110), chin 67 px below, cheeks 43 px beside
        assert 110 - 17 - 45 < box.top < 110 - 17
        assert 110 + 67 < box.top + box.size < 110 + 67 + 30
        assert 60 < 160 - box.left < 85
    assert 60 < 200 - beside.left < 85, "found on another frame"
    assert face == boxes["sub02/EP06_01f"], "that of the subject's other clip"
    assert others == Box(40, 0, 240), "the square in the middle"
    assert set(repairs(source, micro.ELSEWHERE)) == {"sub01/EP03_02"}
    assert set(repairs(source, micro.FACE_OF_SUBJECT)) == {"sub02/EP06_02f"}
    assert repairs(source, micro.NO_FACE) == {"sub05/EP09_05f": "11 of its frames searched"}
    assert source.notes[0] == "raw frames, cropped by one face box a clip: 7 of 7"

    count = len(looked)
    assert read("casme2", root, tmp_path, detector=detector) == source
    assert len(looked) == count, "boxes are kept"
    miniatures.clip(
        next((root / frames.split("/")[0]).rglob("sub06")) / "EP01_01", [99], "img{}.jpg"
    )
    read("casme2", root, tmp_path, detector=detector)
    assert len(looked) == count + 1, "but not where the folder has changed"


def test_samm(root, tmp_path):
    miniatures.samm(root)
    source = read("samm", root, tmp_path)
    assert records(source) == {
        "006/006_1_2": ("006", "happiness", 8, 0, 3, 7, "12"),
        "006/006_5_9": ("006", "contempt", 7, 0, 4, 6, "14"),
        "028/028_4_1": ("028", "others", 14, 0, 5, 13, "R6A+R12"),
        "032/032_3_1": ("032", "anger", 9, 0, 4, 8, "4"),
    }
    assert {clip.fps for clip in source.clips} == {200}
    assert source.clips[0].frames.names[0] == "006_05562.jpg"
    assert source.clips[1].frames.names[2:4] == ("006_9999.jpg", "006_10000.jpg")
    assert all(clip.box and 130 < clip.box.size < 170 for clip in source.clips), (
        "frames as wide as a camera's are cropped"
    )
    assert {id: what.partition(":")[0] for id, what in repairs(source, micro.KNOWN).items()} == {
        "028/028_4_1": "apexframe 1143 → 1105",
        "032/032_3_1": "apexframe 1930 → 4945",
    }
    assert repairs(source, frame_numbers.APEX) == {}
    assert notes(source, "N =") == [
        "N = 4, published 136; classes that differ: happiness 1 (published 26), anger 1 (published "
        "57), contempt 1 (published 12), "
        "surprise 0 (published 15), others 1 (published 26)"
    ]


@pytest.mark.parametrize("by_subject", [False, True])
def test_mmew_in_either_layout(root, tmp_path, by_subject):
    miniatures.mmew(root, by_subject)
    source = read("mmew", root, tmp_path)
    assert records(source) == {
        "S01/S01-01-001": ("S01", "happiness", 12, 0, 8, 11, "12"),
        "S02/S02-03-001": ("S02", "disgust", 10, 0, 4, 9, "4"),
        "S02/S02-04-001": ("S02", "anger", 10, 2, 6, 8, "4+7"),
        "S03/S03-05-001": ("S03", "fear", 8, 3, 5, 7, "5"),
        "S04/S04-07-001": ("S04", "happiness", 45, 19, 29, 44, "12"),
        "S04/S04-07-002": ("S04", "happiness", 75, 0, 29, 74, "12"),
        "S13/S13-02-003": ("S13", "surprise", 12, 0, 8, 11, "1+2"),
    }
    assert {(clip.fps, clip.box) for clip in source.clips} == {(90, None)}
    assert repairs(source, frame_numbers.STRAYS) == {
        "S02/S02-03-001": "by +730: from 1 in each clip, where the files count on from elsewhere",
        "S13/S13-02-003": "by -1479: from elsewhere, where the files begin with the onset",
    }
    assert repairs(source, frame_numbers.REBASED) == {}
    assert notes(source, "how the sheet counts") == [
        "how the sheet counts frames, by its rows: as the files do 3; from elsewhere, where the "
        "files begin with the onset 2; "
        "from 1 in each clip, where the files count on from elsewhere 1"
    ]
    assert repairs(source, frame_numbers.APEX) == {
        "S02/S02-04-001": "apex 40 lies outside the files, 1 to 10; 7.jpg taken",
        "S04/S04-07-002": "apex 140 lies outside the files, 1 to 75; 30.jpg taken",
    }
    assert repairs(source, frame_numbers.BOUNDS) == {
        "S03/S03-05-001": "offset 2 is not after onset 4",
        "S04/S04-07-001": "offset 60 lies outside the files, 1 to 45",  # of no other count
        "S04/S04-07-002": "offset 175 lies outside the files, 1 to 75",
    }
    assert notes(source, "rows of other") == [
        "rows of other emotions, which the protocol leaves out: 1 (others 1)"
    ]


def test_mmew_by_a_sheet_of_other_numbers(root, tmp_path):
    """Five clips of files from 1 in a sheet of absolute numbers, of which one has a wrong offset;
    and one that counts as its files do."""
    headings = [
        "Subject",
        "Filename",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "Action Units",
        "Estimated Emotion",
        "remarks",
    ]
    rows = [
        [
            1,
            f"S01-0{i}-001",
            900 * i,
            900 * i + 4,
            900 * i + (9 if i < 5 else 90),
            "4",
            "anger",
            None,
        ]
        for i in range(1, 6)
    ]
    rows.append([1, "S01-06-001", 731, 735, 740, "4", "anger", None])
    miniatures.workbook(root / "MMEW_Micro_Exp.xlsx", headings, rows)
    for i in range(1, 7):
        numbers = range(1, 11) if i < 6 else range(729, 741)
        miniatures.clip(root / "Micro_Expression" / "anger" / f"S01-0{i}-001", numbers, "{}.jpg", 5)
    source = read("mmew", root, tmp_path)
    assert [record[3:6] for record in records(source).values()] == [(0, 4, 9)] * 5 + [(2, 6, 11)]
    assert repairs(source, frame_numbers.REBASED) == {
        f"S01/S01-0{i}-001": f"by {1 - 900 * i:+d}" for i in range(1, 6)
    }
    assert repairs(source, frame_numbers.STRAYS) == {"S01/S01-06-001": "by +0: as the files do"}
    assert repairs(source, frame_numbers.BOUNDS) == {
        "S01/S01-05-001": "offset 91 lies outside the files, 1 to 10"
    }


def test_rows_that_no_rule_can_mend_are_set_aside(root, tmp_path):
    rows = [
        ["someone", "EP01_01", None, 1, 2, 3, None, "4", "disgust"],
        [1, "EP01_02", None, 1, 2, 3, None, "4", "disgust"],
    ]
    rows += [
        [1, "EP01_03", None, None, None, None, None, None, "disgust"],
        [None, None],
        [1, None, None, 1, 2, 3, None, "4", "disgust"],
    ]
    miniatures.workbook(root / "CASME2-coding.xlsx", miniatures.CASME2_HEADINGS, rows)
    miniatures.clip(root / "Cropped" / "sub01" / "EP01_02", [1], "reg_img{}.jpg")
    miniatures.clip(root / "Cropped" / "sub01" / "EP01_03", range(1, 6), "reg_img{}.jpg", 4)
    (root / "Cropped" / "sub01" / "EP01_03" / "reg_img5.jpg").write_bytes(b"")
    (root / "Cropped" / "sub01" / "EP01_03" / "cover.jpg").write_bytes(
        drawn.jpeg(miniatures.picture())
    )
    source = read("casme2", root, tmp_path)
    assert source.set_aside == (
        SetAside("someone/EP01_01", "subject 'someone' has no number; mend the sheet"),
        SetAside("sub01/", "a row of the sheet without a file name; mend the sheet"),
        SetAside("sub01/EP01_02", "onset and apex need two frames, its folder holds 1"),
    )
    assert records(source) == {"sub01/EP01_03": ("sub01", "disgust", 5, 0, 3, 4, "")}, (
        "a row without any number, an unreadable last frame"
    )
    assert repairs(source, frame_numbers.APEX) == {"sub01/EP01_03": "no apex; reg_img4.jpg taken"}
    assert repairs(source, frame_numbers.BOUNDS) == {"sub01/EP01_03": "no onset and no offset"}


# --------------------------------------------------------------------------- where a root may point


@pytest.mark.parametrize(
    ("name", "part"),
    [("dfew", "Clip"), ("dfew", "Clip/clip_224x224"), ("ferv39k", "2_ClipsforFaceCrop"),
     ("afew", "Val_AFEW"), ("casme2", "Cropped"), ("samm", "SAMM"), ("samm", "SAMM/SAMM"),
     ("mmew", "Micro_Expression")],
)  # fmt: skip
def test_a_root_may_be_a_part_of_the_dataset(root, tmp_path, name, part):
    BUILD[name](root)
    if name not in MACRO:
        options = {"annotations": str(next(root.glob("*.xlsx")))}
        assert (
            read(name, root / part, tmp_path, **options).clips == read(name, root, tmp_path).clips
        )
    else:
        clips = {clip.id: clip.frames for clip in read(name, root, tmp_path).clips}
        within = {clip.id: clip.frames for clip in read(name, root / part, tmp_path).clips}
        assert within
        assert within.items() <= clips.items()


@pytest.mark.parametrize("name", BUILD)
def test_a_root_may_hold_the_dataset_in_a_folder(root, tmp_path, name):
    BUILD[name](root / "as unpacked")
    ids = [clip.id for clip in read(name, root, tmp_path).clips]
    assert ids
    assert ids == [clip.id for clip in read(name, root / "as unpacked", tmp_path).clips]


def test_letter_case_does_not_matter(root, tmp_path):
    miniatures.dfew(root)
    (root / "Clip").rename(root / "clip")
    assert len(read("dfew", root, tmp_path).clips) == 4


# ------------------------------------------------------------------------- what is told in one line


@pytest.mark.parametrize("name", BUILD)
def test_a_dataset_that_is_not_there(tmp_path, name):
    (tmp_path / "full").mkdir()
    for i in range(7):
        (tmp_path / "full" / f"part{i}.zip").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    there = {
        "absent": "the folder does not exist",
        "empty": "the folder is empty",
        "full": "the folder holds part0.zip, part1.zip, ",
    }
    for root, found in {**there, "file": "it is a file"}.items():
        said = error_of(name, tmp_path / root, tmp_path)
        flag = f"source={name}" if name in MACRO else f"target={name}"
        assert said.startswith(
            f"{flag}: looked for {SHOWN[name]} under {tmp_path / root}, found nothing there "
            f"({found}"
        )
        assert said.endswith("unpack the dataset there or give another root")


@pytest.mark.parametrize("name", BUILD)
def test_a_dataset_of_empty_folders_is_not_there(root, tmp_path, name):
    BUILD[name](root)
    kinds = ("jpg", "png", "bmp", "avi", "mp4")
    for path in [each for kind in kinds for each in root.rglob(f"*.{kind}")]:
        path.unlink()
    assert "looked for" in error_of(name, root, tmp_path)


@pytest.mark.parametrize("name", ["dfew", "ferv39k"])
def test_clips_of_single_frames_are_of_no_use(root, tmp_path, name):
    miniatures.clip(
        root / {"dfew": "Clip/clip_224x224/00001", "ferv39k": "2_ClipsforFaceCrop/A/Sad/1"}[name],
        [1],
    )
    assert f"source={name}: a clip needs two frames, and none of 1 has them" in error_of(
        name, root, tmp_path
    )


def test_afew_of_broken_videos_is_of_no_use(root, tmp_path):
    (root / "Train_AFEW" / "Happy").mkdir(parents=True)
    (root / "Train_AFEW" / "Happy" / "1.avi").write_bytes(b"")
    assert (
        f"source=afew: none of 1 clips under {root} can be used (for example train/1: no frame "
        f"could be decoded)" in error_of("afew", root, tmp_path)
    )


@pytest.mark.parametrize("name", ["casme2", "samm", "mmew", "casme", "casme_sq"])
def test_a_sheet_that_is_not_there(root, tmp_path, name):
    BUILD[name](root)
    (sheet,) = root.glob("*.xlsx")
    assert "annotation sheet elsewhere.xlsx: no such file" in error_of(
        name, root, tmp_path, annotations="elsewhere.xlsx"
    )
    renamed = sheet.rename(root / "annotations of mine.xlsx")
    assert read(name, root, tmp_path).annotations == "annotations of mine.xlsx", (
        "the only one there is it"
    )
    shutil.copy(renamed, root / "another.xlsx")
    said = error_of(name, root, tmp_path)
    assert (
        "found annotations of mine.xlsx, another.xlsx; give the sheet as annotations" in said
        or "found another.xlsx, annotations of" in said
    )
    for path in root.glob("*.xlsx"):
        path.unlink()
    (root / "~$CASME2-coding-20190701.xlsx").write_bytes(
        b"what Excel leaves beside a sheet that is open"
    )
    assert "found no file of .xlsx, .xls, .ods, .csv; give the sheet as annotations" in error_of(
        name, root, tmp_path
    )


def test_a_sheet_that_cannot_be_read(root, tmp_path):
    miniatures.casme2(root, 2019)
    path = root / "CASME2-coding-20190701.xlsx"
    path.write_bytes(b"no workbook")
    assert f"annotation sheet {path}: cannot be read as a workbook" in error_of(
        "casme2", root, tmp_path
    )
    miniatures.workbook(path, ["Subject", "Filename", "Emotion"], [[1, "EP01_01", "happy"]])
    assert "the nearest to it lacks onsetframe, apexframe, offsetframe;" in error_of(
        "casme2", root, tmp_path
    )
    miniatures.workbook(path, ["some", "other", "table"], [])
    assert "but there is none of them" in error_of("casme2", root, tmp_path)
    miniatures.workbook(path, miniatures.CASME2_HEADINGS, [])
    assert "no row below the headings names a file" in error_of("casme2", root, tmp_path)
    row = [1, "EP02_01f", None, 95, 100, 105, None, "12", "bored"]
    miniatures.workbook(path, miniatures.CASME2_HEADINGS, [row])
    assert "none of the 1 rows" in error_of("casme2", root, tmp_path)
    miniatures.workbook(
        path, miniatures.CASME2_HEADINGS, [[*row[:-1], "others"], [9, *row[1:-1], "others"]][1:]
    )
    assert "sub09/EP02_01f in the sheet, but there is no such folder of frames" in error_of(
        "casme2", root, tmp_path
    )


def test_a_name_or_split_that_no_dataset_has(tmp_path):
    with pytest.raises(UserError, match="source=dfow: no such source; give dfew, ferv39k"):
        registry.read_dataset(DatasetSpec("dfow", "source"), size=64)
    assert "split=train: source=folder has no splits; remove it" in error_of(
        "folder", tmp_path, tmp_path, split="train"
    )
    assert "target=casme9: no such target; give casme2, samm" in error_of(
        "casme9", tmp_path, tmp_path
    )


def test_a_cache_that_cannot_be_written(root, tmp_path):
    miniatures.dfew(root)
    (tmp_path / "cache").write_bytes(b"a file")
    assert "cannot be written (Not a directory)" in error_of("dfew", root, tmp_path)


@pytest.mark.parametrize("folder", ["00002", "data"])
def test_a_folder_that_cannot_be_listed(root, tmp_path, monkeypatch, folder):
    miniatures.dfew(root)
    scandir = disk.os.scandir

    def forbidden(path):
        if str(path).endswith(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(disk.os, "scandir", forbidden)
    assert f"{folder}: the folder cannot be listed (Permission denied)" in error_of(
        "dfew", root, tmp_path
    )


def test_a_clip_whose_first_frame_is_a_link_to_nowhere_costs_no_other(root, tmp_path):
    BUILD["casme2"](root)
    whole = read("casme2", root, tmp_path / "1")
    first = pathlib.Path(whole.clips[0].frames.folder) / whole.clips[0].frames.names[0]
    first.unlink()
    first.symlink_to(tmp_path / "nowhere.jpg")
    assert [clip.id for clip in read("casme2", root, tmp_path / "2").clips] == [
        clip.id for clip in whole.clips
    ]
    frames = ImageFolder(str(first.parent), (first.name,))
    before = disk.stamp(frames)
    (tmp_path / "nowhere.jpg").write_bytes(b"here")
    assert disk.stamp(frames) != before


def test_the_one_reader_that_computes_is_imported_only_if_asked_for():
    code = (
        "import sys; from ma2mi_jax.datasets import registry; "
        "sys.exit('ma2mi_jax.datasets.drawn.synthetic' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[2]
        ).returncode
        == 0
    )


@pytest.mark.parametrize("name", [name for name in BUILD if name not in MACRO])
def test_the_clips_of_a_sheet_load_as_pairs(root, tmp_path, name):
    BUILD[name](root)
    clips = read(name, root, tmp_path).clips
    pairs, replaced = pipeline.load_pairs(clips, 64)
    assert replaced == []
    assert pairs.shape == (len(clips), 2, 64, 64, 3)
    changes = abs(pairs[:, 0].astype(int) - pairs[:, 1]).mean((1, 2, 3))
    assert (changes > 0.5).all(), "an apex shows something that its onset does not"


@pytest.mark.parametrize("name", BUILD)
def test_blanks_around_the_names_of_folders_do_not_matter(tmp_path, name):
    """A sheet loses them, and nobody sees them."""
    BUILD[name](tmp_path / "plain")
    BUILD[name](tmp_path / "blank")
    inside = sorted((path for path in (tmp_path / "blank").rglob("*") if path.is_dir()), key=str)
    for folder in reversed(inside):
        folder.rename(folder.with_name(f" {folder.name}\N{NO-BREAK SPACE}"))
    plain, found = (read(name, tmp_path / each, tmp_path) for each in ("plain", "blank"))
    assert records(found) == records(plain)
    assert [each.id for each in found.set_aside] == [each.id for each in plain.set_aside]


def test_names_that_differ_in_a_blank_alone_are_two_clips(root, tmp_path):
    miniatures.casme2(root, 2019)
    frames = root / "Cropped" / "Cropped" / "sub01"
    shutil.copytree(frames / "EP02_01f", frames / "EP02_01f ")
    found = read("casme2", root, tmp_path)
    assert {clip.id: clip.frames.folder for clip in found.clips}["sub01/EP02_01f"] == str(
        frames / "EP02_01f"
    )
    assert notes(found, "clips on disk that the sheet does not list")[0].count("EP02_01f ") == 1
