"""The readers of the datasets that the paper does not use, on miniatures in every form that people
have; then class sets."""

import miniatures
import pytest
from reading import notes, read, records, repairs

from ma2mi_jax.datasets import afew
from ma2mi_jax.datasets.common import frame_numbers, macro, merged


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        (("Section A", "Section B"), "{}-{{:03d}}.jpg"),
        (("CASME/Cropped",), "reg_{}-{{}}.jpg"),
        ((".",), "{}-{{}}.jpg"),
    ],
)
def test_casme(root, tmp_path, sections, name):
    miniatures.casme(root, sections, name)
    found = read("casme", root, tmp_path)
    assert records(found) == {
        "sub01/EP01_5": ("sub01", "disgust", 9, 0, 3, 8, "4"),
        "sub01/EP01_8": ("sub01", "tense", 9, 0, 3, 8, "L14"),
        "sub09/EP02_01": ("sub09", "amusement", 7, 0, 3, 6, "10+12"),
        "sub09/EP02_02": ("sub09", "repression", 50, 0, 20, 49, "4+7"),
    }
    assert {clip.fps for clip in found.clips} == {60}
    assert set(repairs(found, frame_numbers.STRAYS)) == {"sub09/EP02_02"}
    assert notes(found, "N =") == [], "the classes' numbers of clips are not known"


@pytest.mark.parametrize("form", ["clips", "frames", "frames/aligned"])
def test_mafw(root, tmp_path, form):
    miniatures.mafw(root, form)
    found = read("mafw", root, tmp_path)
    angry, happy = macro.EMOTIONS.index("angry"), macro.EMOTIONS.index("happy")
    assert {clip.id: (clip.label, len(clip.frames)) for clip in found.clips} == {
        "00001": (angry, 9),
        "00002": (happy, 9),
        "00003": (-1, 9),
    }
    assert [each.id for each in found.set_aside] == ["00004", "00005"]
    assert notes(found, "clips of contempt")[0].endswith("taken without a label: 1")
    assert notes(found, "clips decoded") == (
        ["clips decoded from their videos and cropped: 3"] if form == "clips" else []
    )
    train = read("mafw", root, tmp_path, split="train_1")
    assert [(clip.id, clip.label) for clip in train.clips] == [("00001", angry), ("00003", -1)]


@pytest.mark.parametrize("place", ["selectedpic", "cropped", "rawpic"])
def test_casme_sq(root, tmp_path, place):
    miniatures.casme_sq(root, place)
    found = read("casme_sq", root, tmp_path)
    late = (5, 0, 4, 4) if place == "rawpic" else (11, 0, 4, 10)
    assert records(found) == {
        "s15/disgust1_1": ("s15", "negative", 8, 0, 3, 7, "4+7"),
        "s15/disgust1_2": ("s15", "negative", *late, "4"),
        "s16/happy1_1": ("s16", "positive", 8, 0, 3, 7, "12"),
        "s16/happy1_2": ("s16", "others", 8, 0, 4, 7, "25"),
    }
    assert repairs(found, frame_numbers.BOUNDS) == {"s15/disgust1_2": "no offset"}
    assert found.notes[0] == f"frames read from {place}"
    assert notes(found, "clips cut from whole recordings") == (
        ["clips cut from whole recordings: 4"] if place == "rawpic" else []
    )
    assert notes(found, "rows of macro") == ["rows of macro-expressions, which are left out: 1"]


@pytest.mark.parametrize("cut_out", [False, True])
def test_casme3(root, tmp_path, cut_out):
    miniatures.casme3(root, cut_out)
    found = read("casme3", root, tmp_path)
    assert found.annotations == "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    clips = records(found)
    assert clips["spNO.1/a_55"] == ("spNO.1", "disgust", 8, 0, 3, 7, "4")
    assert clips["spNO.1/a_80"] == ("spNO.1", "happiness", 9, 0, 4, 8, "12")
    assert {id: record[1] for id, record in clips.items()} == {
        "spNO.1/a_55": "disgust",
        "spNO.1/a_80": "happiness",
        "spNO.10/m_6470": "others",
        "spNO.2/b_31": "surprise",
    }
    late = next(clip for clip in found.clips if clip.id == "spNO.2/b_31")
    assert [late.frames.names[i] for i in (late.onset, late.apex)] == ["31.jpg", "35.jpg"]
    assert {"spNO.2/b_31", "spNO.10/m_6470"} == set(repairs(found, frame_numbers.BOUNDS))
    estimated = {"spNO.1/a_80"} if cut_out else {"spNO.1/a_80", "spNO.10/m_6470"}
    assert set(repairs(found, frame_numbers.APEX)) == estimated
    holds = "folders of expressions" if cut_out else "whole recordings, from which clips are cut"
    assert found.notes[0].endswith(f"which holds {holds}")


@pytest.mark.parametrize("sheet", [".csv", ".xlsx"])
@pytest.mark.parametrize("form", ["{subject}/{name}", "{name}", "train/{subject}/{name}"])
def test_dfme(root, tmp_path, form, sheet):
    miniatures.dfme(root, form, sheet)
    found = read("dfme", root, tmp_path)
    assert found.annotations == f"DFME_annotations{sheet}"
    assert records(found) == {
        "007/7_1": ("007", "happiness", 10, 2, 5, 8, "12"),
        "007/7_2": ("007", "contempt", 10, 2, 5, 8, "R14"),
        "612/612_1": ("612", "sadness", 10, 0, 3, 7, "15"),
    }
    assert [clip.fps for clip in found.clips] == [200, 300, 500]
    assert set(repairs(found, frame_numbers.APEX)) == {"007/7_2"}
    layout = "<subject>/<clip>" if "{subject}" in form else "<clip>"
    assert found.notes[0] == f"how the clips' folders lie: {layout} 3"


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("places", [("",), ("RGB", "gray")])
def test_4dme(root, tmp_path, places, flags):
    miniatures.fourdme(root, places, flags)
    found = read("4dme", root, tmp_path)
    assert records(found) == {
        "01/1_01": ("01", "positive", 10, 0, 3, 8, "AU12"),
        "01/1_02": ("01", "negative", 10, 0, 3, 8, "AU4(k)+AU7"),
        "23/23_02": ("23", "surprise", 10, 0, 4, 8, "AU1+AU2"),
    }
    assert set(repairs(found, frame_numbers.APEX)) == {"01/1_02"}
    assert notes(found, "rows of other emotions") == [
        "rows of other emotions, which the protocol leaves out: 1 (positive+surprise 1)"
    ]
    assert found.notes[0] == (
        "frames read from RGB; not read: gray" if places[0] else "frames read from data"
    )
    assert found.notes[1].endswith("columns of flags" if flags else "column of emotions")


# ----- folders without images ---------------------------------------------------------------------


def scenes_alone(root):
    miniatures.ferv39k(root)
    (root / "2_ClipsforFaceCrop" / "2_ClipsforFaceCrop").rename(root / "scenes")
    (root / "2_ClipsforFaceCrop").rename(root / "outermost")


def dfew_as_jpg_256(root):
    miniatures.dfew(root)
    renamed(root / "Clip", "clip_224x224", "jpg_256")


def renamed(place, old, new):
    """A folder under another name, and the one of the same name in it."""
    (place / old).rename(place / new)
    (place / new / old).rename(place / new / new)


@pytest.mark.parametrize(
    ("name", "build", "empty"),
    [
        ("casme2", lambda root: miniatures.casme2(root, 2019, frames="CASME2-RAW"),
         ["Cropped/sub01/EP02_01f"]),
        ("samm", lambda root: miniatures.samm(root / "SAMM"), ["A copy/006/006_1_2"]),
        ("smic", lambda root: miniatures.smic(root, "SMIC_all_raw/HS"),
         ["SMIC_all_cropped/HS/s01/micro/negative/s01_ne_01"]),
        ("casme", lambda root: miniatures.casme(root, ("Section A",), "{}-{{:03d}}.jpg"),
         ["Cropped/sub01/EP01_5", "Section B/sub01/EP01_5"]),
        ("casme_sq", lambda root: miniatures.casme_sq(root, "selectedpic"),
         ["cropped/15/disgust1_1", "selectedpic/s015/disgust1_1"]),
        ("casme3", miniatures.casme3, ["data/ME_A/label_v2"]),
        ("casme3", lambda root: miniatures.casme3(root, cut_out=True),
         ["Part_A_ME_clip/empty/spNo.1_a_55"]),
        ("4dme", lambda root: miniatures.fourdme(root, ("gray",)), ["RGB/01/1_01"]),
        ("mafw", lambda root: miniatures.mafw(root, "frames/aligned"), ["data/frames/00001"]),
        ("afew", miniatures.afew, ["Train_AFEW/AlignedFaces_other/Faces/001"]),
        ("ferv39k", scenes_alone, ["2_ClipsforFaceCrop"]),
        ("dfew", dfew_as_jpg_256, ["Clip/clip_224x224/00001"]),
    ],
)  # fmt: skip
def test_a_folder_without_images_hides_no_other(root, tmp_path, name, build, empty):
    build(root)
    clips = [(c.id, c.label, c.box, c.frames) for c in read(name, root, tmp_path).clips]
    assert clips
    for each in empty:
        (root / each).mkdir(parents=True)
    found = read(name, root, tmp_path)
    assert [(c.id, c.label, c.box, c.frames) for c in found.clips] == clips


@pytest.mark.parametrize(
    ("name", "folders", "videos"),
    [
        ("dfew", "Clip/clip_224x224/{}", "Clip/original/{}.mp4"),
        ("ferv39k", "2_ClipsforFaceCrop/{}", "0_7_LabelClips/{}.mp4"),
    ],
)
def test_a_folder_without_two_frames_hides_no_video(root, tmp_path, name, folders, videos):
    ids = {"dfew": ["1", "2", "3"], "ferv39k": [f"Action/Sad/{n}" for n in (1, 2, 3)]}[name]
    for id, frames in zip(ids, (0, 1, 5), strict=True):
        (root / folders.format(id)).mkdir(parents=True)
        miniatures.clip(root / folders.format(id), range(frames), "{}.jpg", 2)
        talk = [miniatures.person(mouth=i % 3 / 2) for i in range(9)]
        miniatures.drawn.video(root / videos.format(id), talk)
    found = read(name, root, tmp_path)
    assert {c.id: len(c.frames) for c in found.clips} == dict(zip(ids, (9, 9, 5), strict=True))
    assert found.set_aside == ()


# ----- what is there twice ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "build", "own", "other", "line", "differing"),
    [
        ("dfew", miniatures.dfew, "EmoLabel_DataSplit/train(single-labeled)/set_1.csv",
         "EmoLabel_DataSplit/train/set_1.csv", "12,7\n",
         "train_1 in train/set_1.csv, train(single-labeled)/set_1.csv"),
        ("ferv39k", miniatures.ferv39k, "4_setups/All_scenes/train_All.csv",
         "4_setups/more/train_all.csv", "Daily/Happy/0009 Sad\n",
         "train in All_scenes/train_All.csv, more/train_all.csv"),
        ("mafw", lambda root: miniatures.mafw(root, "frames"),
         "Train & Test Set/single/no_caption/set_1/train.txt",
         "Train & Test Set/single/set_1/train.txt", "00002.mp4 fear\n",
         "train_1 in single/no_caption/set_1/train.txt, single/set_1/train.txt"),
    ],
)  # fmt: skip
def test_lists_of_one_name_that_differ_are_told(
    root, tmp_path, name, build, own, other, line, differing
):
    build(root)
    split = differing.partition(" ")[0]
    clips = read(name, root, tmp_path, split=split).clips
    (root / other).parent.mkdir(parents=True, exist_ok=True)
    (root / other).write_bytes((root / own).read_bytes())
    copied = read(name, root, tmp_path, split=split)
    assert (copied.clips, notes(copied, "lists of one name")) == (clips, [])
    (root / other).write_text((root / own).read_text() + line)
    more = read(name, root, tmp_path, split=split)
    assert len(more.clips) == len(clips) + 1
    assert notes(more, "lists of one name") == [
        f"lists of one name that differ, taken as one: 1 ({differing})"
    ]


@pytest.mark.parametrize("frames", [9, 1])
def test_a_clip_of_smic_under_two_classes_counts_once_and_is_told(root, tmp_path, frames):
    """With the frames and the class of one folder: the first that holds two frames."""
    miniatures.smic(root)
    own = read("smic", root, tmp_path)
    place = root / "SMIC_all_cropped/HS/s01/micro"
    if frames == 1:
        (place / "negative" / "s01_ne_01").rename(place / "surprise" / "s01_ne_01")
        miniatures.clip(place / "negative" / "s01_ne_01", [1], "reg_image{}.bmp")
    else:
        miniatures.clip(place / "surprise/s01_ne_01", range(1, 10), "reg_image{}.bmp")
    found = read("smic", root, tmp_path)
    counts, over = ("surprise", "negative") if frames == 1 else ("negative", "surprise")
    (clip,) = (clip for clip in found.clips if clip.id == "s01/s01_ne_01")
    assert found.classes[clip.label] == counts
    assert clip.frames.folder == str(place / counts / "s01_ne_01")
    assert len(found.clips) == len(own.clips)
    (told,) = {each.reason for each in found.set_aside} - {each.reason for each in own.set_aside}
    paths = [f"s01/micro/{each}/s01_ne_01" for each in (over, counts)]
    assert told == "there are several of its name: {} is passed over, {} counts".format(*paths)


def test_a_video_of_afew_under_two_emotions_counts_once_and_is_told(root, tmp_path):
    miniatures.afew(root)
    own = read("afew", root, tmp_path)
    (root / "Train_AFEW" / "Sad").mkdir()
    video = root / "Train_AFEW" / "Sad" / "002.avi"
    video.write_bytes((root / "Train_AFEW" / "Angry" / "002.avi").read_bytes())
    found = read("afew", root, tmp_path)
    assert found.clips == own.clips
    assert notes(found, "videos that are called") == [
        f"{afew.TWICE} in Train_AFEW: 1 (Sad/002.avi)"
    ]


# ----- other forms of the paper's sources ---------------------------------------------------------


def test_dfew_under_another_name_and_as_videos(root, tmp_path):
    miniatures.dfew(root)
    own = read("dfew", root, tmp_path / "1")
    renamed(root / "Clip", "clip_224x224", "jpg_256")
    talk = [miniatures.person(mouth=i % 3 / 2) for i in range(9)]
    for n in (1, 6):  # of clip 1 there are frames too
        miniatures.drawn.video(root / "Clip" / "original" / f"{n}.mp4", talk)
    found = read("dfew", root, tmp_path / "2")
    counts = {clip.id: (clip.label, len(clip.frames)) for clip in found.clips}
    assert counts.pop("00006") == (macro.emotion("neutral"), 9)
    assert counts == {clip.id: (clip.label, len(clip.frames)) for clip in own.clips}
    assert notes(found, "clips decoded") == ["clips decoded from their videos and cropped: 1"]
    assert "read: frames in jpg_256, videos in original" in found.notes


@pytest.mark.parametrize("name", [".", "FERV39k_frames"])
def test_ferv39k_without_its_outermost_folder(root, tmp_path, name):
    miniatures.ferv39k(root / "own")
    own = read("ferv39k", root / "own", tmp_path)
    (root / "own" / "2_ClipsforFaceCrop" / "2_ClipsforFaceCrop").rename(tmp_path / "scenes")
    place = tmp_path / "scenes"
    if name != ".":
        place = root / "other"
        place.mkdir()
        (tmp_path / "scenes").rename(place / name)
    found = read("ferv39k", place, tmp_path)
    assert [clip.id for clip in found.clips] == [clip.id for clip in own.clips]


@pytest.mark.parametrize("home", ["0_7_LabelClips", "."])
def test_ferv39k_as_videos(root, tmp_path, home):
    talk = [miniatures.person(mouth=i % 3 / 2) for i in range(9)]
    if home != ".":  # one clip as frames too, which are read first
        miniatures.clip(root / "2_ClipsforFaceCrop/Action/Sad/0003", range(5), "{:04d}.jpg", 2)
    for id in ("Action/Happy/0267", "Action/Sad/0003", "Daily/Fear/0001"):
        miniatures.drawn.video(root / home / f"{id}.mp4", talk)
    lists = root / "All_scenes"
    lists.mkdir()
    lines = "Action/Happy/0267.mp4 Happy\n0_7_LabelClips/Daily/Fear/0001 Surprise\n"
    (lists / "train_All.csv").write_text(lines)
    found = read("ferv39k", root, tmp_path)
    assert {c.id: (found.classes[c.label], len(c.frames)) for c in found.clips} == {
        "Action/Happy/0267": ("happy", 9),
        "Action/Sad/0003": ("sad", 9 if home == "." else 5),
        "Daily/Fear/0001": ("surprise", 9),
    }
    frames = "" if home == "." else "frames in 2_ClipsforFaceCrop, "
    place = root.name if home == "." else home
    assert f"read: {frames}videos in {place}" in found.notes
    train = read("ferv39k", root, tmp_path, split="train")
    assert [clip.id for clip in train.clips] == ["Action/Happy/0267", "Daily/Fear/0001"]


@pytest.mark.parametrize("inner", ["", "Test_vid"])
def test_the_test_part_of_afew_has_no_labels(root, tmp_path, inner):
    miniatures.afew(root)
    own = read("afew", root, tmp_path)
    part = root / "Test_AFEW"
    talk = [miniatures.person(mouth=i % 3 / 2) for i in range(9)]
    miniatures.drawn.video(part / inner / "007.avi", talk, "MJPG")
    faces = part / "AlignedFaces_LBPTOP_Points_Test" / "Faces"
    miniatures.clip(faces / "008", range(1, 6), "{:03d}.jpg", 3)
    found = read("afew", root, tmp_path)
    assert found.clips[2:] == own.clips
    test = {clip.id: (clip.label, len(clip.frames)) for clip in found.clips[:2]}
    assert test == {"test/007": (-1, 9), "test/008": (-1, 5)}
    assert notes(found, "clips of the test part") == [
        "clips of the test part, which has no labels: 2"
    ]
    assert "2 clips in Test_AFEW, published 653" in found.notes
    assert [c.id for c in read("afew", root, tmp_path, split="test").clips] == list(test)


# ----- class sets ---------------------------------------------------------------------------------

NEGATIVE, POSITIVE, SURPRISE = merged.THREE


@pytest.mark.parametrize(
    ("name", "classes", "labels"),
    [
        ("casme2", 3, {"sub01/EP02_01f": POSITIVE, "sub01/EP03_02": NEGATIVE,
                       "sub02/EP06_01f": NEGATIVE, "sub02/EP06_02f": SURPRISE}),
        ("samm", 3, {"006/006_1_2": POSITIVE, "006/006_5_9": NEGATIVE, "032/032_3_1": NEGATIVE}),
        ("mmew", 3, {"S01/S01-01-001": POSITIVE, "S02/S02-03-001": NEGATIVE,
                     "S03/S03-05-001": NEGATIVE, "S13/S13-02-003": SURPRISE}),
        ("casme_sq", 3, {"s15/disgust1_1": NEGATIVE, "s16/happy1_1": POSITIVE}),
        ("casme3", 3, {"spNO.1/a_55": NEGATIVE, "spNO.1/a_80": POSITIVE, "spNO.2/b_31": SURPRISE}),
        ("casme3", 4, {"spNO.1/a_55": NEGATIVE, "spNO.10/m_6470": "others"}),
        ("dfme", 3, {"007/7_1": POSITIVE, "007/7_2": NEGATIVE, "612/612_1": NEGATIVE}),
    ],
)  # fmt: skip
def test_a_class_set(root, tmp_path, name, classes, labels):
    miniatures.ALL[name](root)
    found = read(name, root, tmp_path, classes=classes)
    assert len(found.classes) == classes
    labelled = {clip.id: found.classes[clip.label] for clip in found.clips}
    assert labelled.items() >= labels.items()
    assert ("others" in labelled.values()) == (classes == 4)


def test_a_class_set_takes_emotions_that_the_own_classes_leave_out(root, tmp_path):
    miniatures.samm(root)
    frames = root / "SAMM" / "SAMM" / "010" / "010_2_1"
    miniatures.clip(frames, range(1, 4), "010_{:04d}.jpg", 2)  # fear
    assert "010/010_2_1" not in records(read("samm", root, tmp_path))
    three = records(read("samm", root, tmp_path, classes=3))
    assert three["010/010_2_1"][1] == NEGATIVE


def test_the_number_of_the_own_classes_changes_nothing(root, tmp_path):
    for name in ("casme2", "casme3"):
        miniatures.ALL[name](root / name)
        own = read(name, root / name, tmp_path)
        assert read(name, root / name, tmp_path, classes=len(own.classes)) == own
