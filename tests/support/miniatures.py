"""Miniature copies of the datasets, laid out as their authors ship them, with every fault they
are known for. No frame is theirs."""

import pathlib
import sys

import cv2
import drawn
import numpy as np
import openpyxl

JUNK = (
    "Thumbs.db",
    ".DS_Store",
    "Desktop - Shortcut.lnk",
    "desktop.ini",
    "._reg_img1.jpg",
    "._1.jpg",
)


def picture(level=0, shape=(34, 28)):
    """uint8 RGB; pictures differ the more their levels (0 ... 100) do."""
    image = np.full((*shape, 3), 100, np.uint8)
    cv2.circle(image, (shape[1] // 2, shape[0] // 2), min(shape) // 3, (100 + level,) * 3, -1)
    return image


def person(x=160, mouth=0.0):
    """A raw frame, uint8 RGB (240, 320, 3), with a face."""
    return drawn.face(x, 110, 120, mouth=mouth)


def nobody():
    return np.ascontiguousarray(
        np.broadcast_to(np.linspace(40, 200, 320)[:, None].astype(np.uint8), (240, 320, 3))
    )


def clip(folder, numbers, name="img{}.jpg", peak=None, image=None):
    """Image files with these numbers; the picture changes up to number `peak` and back, or is
    `image(number)`."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        level = 0 if peak is None else max(0, 100 - 10 * abs(n - peak))
        (folder / name.format(n)).write_bytes(drawn.jpeg(image(n) if image else picture(level)))


def litter(folder):
    """Leaves junk in `folder` and in the folders in it."""
    for place in (folder, *[path for path in folder.rglob("*") if path.is_dir()]):
        for name in JUNK:
            (place / name).write_bytes(b"junk")
    (folder / "__MACOSX" / "x" / "y").mkdir(parents=True)
    (folder / "__MACOSX" / "x" / "y" / "1.jpg").write_bytes(b"junk")


def workbook(path, headings, rows, preamble=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for n in range(preamble):
        book.active.append(
            [f"About this sheet, line {n}", None, "Subject to a licence" if n == 2 else None]
        )
    for row in (headings, *rows):
        book.active.append(row)
    book.save(path)


# -------------------------------------------------------------------------------- macro-expressions


def dfew(root, lists="EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv"):
    """Clips 1, 2, 3, 12; 4 of one frame, 5 empty; 6 in the lists alone; 12 in none."""
    clips = root / "Clip" / "clip_224x224" / "clip_224x224"
    for n, frames in ((1, 11), (2, 12), (3, 2), (4, 1), (12, 3)):
        clip(clips / f"{n:05d}", range(1, frames + 1), "{}.jpg", frames // 2)
    (clips / "00005").mkdir()
    clip(root / "Clip" / "clip_224x224_16f" / "00001", range(1, 17), "{}.jpg")
    rows = {
        ("train", 1): "1,1\n00002,4\n",
        ("test", 1): "3,7\n4,2\n5,3\n6,3\n",
        ("train", 2): "3,7\n1,1\n",
        ("test", 2): "2,4\nnone,1\n3,9\n",
    }
    for (part, fold), text in rows.items():
        path = root / lists.format(part, fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("video_name,label\n" + text)
    litter(root)


def ferv39k(root):
    """Clips in a nested folder; Action/Sad/0003 is listed as Fear, Daily/Happy/0009 in no list,
    Action/Fear/0005 not there."""
    clips = root / "2_ClipsforFaceCrop" / "2_ClipsforFaceCrop"
    for id, frames in (
        ("Action/Happy/0267", 8),
        ("Action/Sad/0003", 47),
        ("Daily/Happy/0009", 2),
        ("Daily/Neutral/0001", 1),
    ):
        clip(clips / id, range(frames), "{:04d}.jpg", frames // 2)
    setups = root / "4_setups"
    (setups / "All_scenes").mkdir(parents=True)
    (setups / "All_scenes" / "train_All.csv").write_text(
        "Action/Happy/0267 Happy\nAction/Sad/0003 Fear\nAction/Fear/0005 Fear\n"
    )
    (setups / "All_scenes" / "test_All.csv").write_text(
        "Daily/Neutral/0001 Neutral\nsome nonsense here\n"
    )
    (setups / "22_scenes").mkdir()
    (setups / "22_scenes" / "train_Action.csv").write_text("Action/Happy/0267 Happy\n")
    litter(root)


def afew(root):
    """Train: 001 video and aligned faces, 002 video, 003 faces without a video, 004 one aligned
    face, 005 a broken video, 006 a video and
    one aligned face. Val: 001."""
    train, val = root / "Train_AFEW", root / "Val_AFEW" / "Val_AFEW"
    talk = [person(mouth=i % 3 / 2) for i in range(9)]
    for name in ("001", "002", "006"):
        drawn.video(train / "Angry" / f"{name}.avi", talk, "MJPG")
    (train / "Fear").mkdir()
    (train / "Fear" / "005.avi").write_bytes(b"no video")
    faces = train / "AlignedFaces_LBPTOP_Points" / "Faces"
    clip(faces / "001", (1, 2, 4, 10), "{:03d}.jpg", 4)
    clip(faces / "003", (1, 2), "{:03d}.jpg", 2)
    clip(faces / "004", (1,), "{:03d}.jpg")
    clip(faces / "006", (1,), "{:03d}.jpg")
    clip(val / "AlignedFaces_LBPTOP_Points_Val" / "Faces" / "001", range(16), "{:03d}.jpg", 8)
    (val / "Surprise").mkdir()
    (val / "Surprise" / "001.avi").write_bytes(b"not needed")
    litter(root)


def mafw(root, form="clips"):
    """Three videos, one of them broken, or two folders of frames and one of a single frame; clip 3
    is of none of the seven emotions, clip 4 is in the lists alone."""
    for n in (1, 2, 3):
        if form == "clips":
            place = root / "data" / "clips" / f"{n:05d}.mp4"
            talk = [person(mouth=i % 3 / 2) for i in range(9)]
            drawn.video(place, talk, "mp4v")
        else:
            clip(root / "data" / form / f"{n:05d}", range(1, 10), "{}.jpg", 4)
    if form == "clips":
        (root / "data" / "clips" / "00005.mp4").write_bytes(b"no video")
    else:
        clip(root / "data" / form / "00005", [1], "{}.jpg")
    rows = [["00001.mp4", 0, 1, 1], ["00002.mp4", 1, 0, 4], ["00003.mp4", 1, 0, 9]]
    workbook(root / "Labels" / "single-set.xlsx", ["clip", "a", "b", "single_label"], rows)
    lists = root / "Train & Test Set" / "single" / "no_caption" / "set_1"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("00001.mp4 anger\n00003.mp4 anxiety\n")
    (lists / "test.txt").write_text("00002.mp4 4\n00004.mp4 fear\n")
    other = root / "Train & Test Set" / "compound" / "no_caption" / "set_1"
    other.mkdir(parents=True)
    (other / "train.txt").write_text("00001.mp4 anger_disgust\n")
    litter(root)


# -------------------------------------------------------------------------------- micro-expressions

CASME2_HEADINGS = [
    "Subject",
    "Filename",
    None,
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    None,
    "Action Units",
    "Estimated Emotion",
]


def casme2(root, *editions, frames="Cropped/Cropped"):
    """The sheets of the years `editions` (2014, 2019; they differ in sub06), and frames, cropped or
    raw by the folder's name."""
    rows = [
        ["01", "EP02_01f", None, 95, 100, 105, None, "12", "happiness"],
        [
            1,
            "EP03_02 ",
            None,
            10,
            30,
            40,
            None,
            "(R6 or R12)+R15",
            " Disgust ",
        ],  # frames 28 ... 31 are absent
        ["04", "EP12_01f", None, 261, "/", 321, None, "4+R10", "others"],
        ["05", "EP09_05f", None, 7, 7, 17, None, "?", "other"],  # onset = apex
        [3.0, "EP01_01", None, 5, 8, 11, None, "L1+L2", "repression"],  # no folder
        ["02", "EP06_01f", None, 20, 99, 30, None, 4, "Repression"],  # apex after the offset
        ["02", "EP06_02f", None, 20, 25, 15, None, "10A/B", "surprise"],  # offset before the onset
        ["02", "EP06_02f", None, 20, 25, 28, None, "1", "happiness"],  # again
        ["02", "EP07_01", None, 1, 2, 3, None, "4", "fear"],
        ["02", "EP07_02", None, 1, 2, 3, None, "4", None],
    ]
    late = ["06", "EP01_01", None, 1, 4, 6, None, "1+2", "surprise"]
    stamps = {2014: "20140508", 2019: "20190701"}
    for year in editions:
        extra = ["Objective Classes"] if year == 2019 else []
        some = [*rows, late] if year == 2019 else rows
        workbook(
            root / f"CASME2-coding-{stamps[year]}.xlsx",
            CASME2_HEADINGS + extra,
            [[*row, *([3] if extra else [])] for row in some],
        )
    home = root / frames
    raw = "raw" in frames.lower()
    name = "img{}.jpg" if raw else "reg_img{}.jpg"

    def make(id, numbers, peak=None, image=None):
        clip(
            home / id,
            numbers,
            name,
            peak,
            image or ((lambda n: person(mouth=max(0.0, 1 - abs(n - peak) / 10))) if raw else None),
        )

    make("sub01/EP02_01f", range(95, 106), 100)
    make(
        "sub01/EP03_02",
        [*range(10, 28), *range(32, 41)],
        25,
        (lambda n: person(200) if n > 10 else nobody()) if raw else None,
    )
    make("sub04/EP12_01f", range(261, 322, 2), 281)
    make("sub05/EP09_05f", range(7, 18), 13, (lambda n: nobody()) if raw else None)
    make("sub02/EP06_01f", range(20, 31), 27)
    make("sub02/EP06_02f/EP06_02f", range(20, 29), 25, (lambda n: nobody()) if raw else None)
    make("sub02/EP07_01", range(1, 4), 2)
    make("sub06/EP01_01", range(1, 7), 4)
    make("sub07/EP09_09", range(1, 3), 2)
    litter(root)


def samm(root, home="SAMM/SAMM"):
    """Raw frames, grey; the sheet has its preamble, and both known faults."""
    headings = [
        "Subject",
        "Filename",
        "Inducement Code",
        "Onset Frame",
        "Apex Frame",
        "Offset Frame",
        "Duration",
        "Micro",
        "Action Units",
    ]
    headings += ["Estimated Emotion", "Objective Classes", "Notes"]
    rows = [
        ["006", "006_1_2", 1, 5562, 5565, 5569, 8, "1/2", "12", "Happiness", 1, None],
        [28, "028_4_1", 4, 1100, 1143, 1113, 14, "1/2", "R6A+R12", "Other", 7, "Look again"],
        ["032", "032_3_1", 3, 4941, 1930, 4949, 9, "1/2", "4", "Anger", 3, None],
        [
            6,
            "006_5_9",
            5,
            9997,
            10001,
            10003,
            7,
            "1/2",
            "14",
            "Contempt",
            5,
            None,
        ],  # four and five digits
        ["010", "010_2_1", 2, 1, 2, 3, 3, "1/2", "5", "Fear", 6, None],
    ]
    workbook(root / "SAMM_Micro_FACS_Codes_v2.xlsx", headings, rows, preamble=13)

    def grey(peak):
        return lambda n: np.repeat(
            person(mouth=max(0.0, 1 - abs(n - peak) / 6)).mean(-1, keepdims=True).astype(np.uint8),
            3,
            -1,
        )

    for name, numbers, peak, digits in (
        ("006_1_2", range(5562, 5570), 5565, 5),
        ("028_4_1", range(1100, 1114), 1105, 4),
        ("032_3_1", range(4941, 4950), 4945, 4),
        ("006_5_9", range(9997, 10004), 10001, 4),
    ):
        clip(
            root / home / name[:3] / name,
            numbers,
            f"{name[:3]}_{{:0{digits}d}}.jpg",
            image=grey(peak),
        )
    litter(root)


def mmew(root, by_subject=False):
    """Either layout. Numbers: as the files' but for S13-02-003, sheet absolute and files from 1,
    and S02-03-001, the other way about."""
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
        [1, "S01-01-001", 1, 9, 12, "12", "happiness", None],
        ["S13", "S13-02-003", 1480, 1488, 1491, "1+2", "Surprise", "raw numbers"],
        [2.0, "S02-03-001", 1, 5, 10, "4", "disgust", None],
        [
            "S04",
            "S04-07-001",
            20,
            30,
            60,
            "12",
            "happiness",
            "look again",
        ],  # offset after the last frame
        ["S04", "S04-07-002", 1, 140, 175, "12", "happiness", None],  # and apex
        ["02", "S02-04-001", 3, 40, 9, "4+7", "anger", None],  # impossible apex
        [3, "S03-05-001", 4, 6, 2, "5", "fear", None],  # impossible offset
        [3, "S03-06-001", 1, 3, 5, "5", "others", None],
    ]
    workbook(root / "MMEW_Micro_Exp.xlsx", headings, rows)
    for id, numbers, peak in (
        ("happiness/S01-01-001", range(1, 13), 9),
        ("surprise/S13-02-003", range(1, 13), 9),
        ("disgust/S02-03-001", range(731, 741), 735),
        ("happiness/S04-07-001", range(1, 46), 30),
        ("happiness/S04-07-002", range(1, 76), 30),
        ("anger/S02-04-001", range(1, 11), 7),
        ("fear/S03-05-001", range(1, 9), 6),
        ("others/S03-06-001", range(1, 6), 3),
    ):
        subject = id.rpartition("/")[2][:3]
        clip(
            root / "Micro_Expression" / (f"{subject}/{id}" if by_subject else id),
            numbers,
            "{}.jpg",
            peak,
        )
    litter(root)


def casme(root, sections=("Section A", "Section B"), name="{}-{{:03d}}.jpg"):
    """Raw frames in two sections, or all cropped in one folder; the last row disagrees with its
    folder, as five rows of the real sheet do."""
    rows = [
        [1, "EP01_5", None, 73, 76, 0, 81, None, "4", "disgust"],
        [1, "EP01_8", None, 1, 4, 7, 9, None, "L14", "tense"],
        [9, "EP02_01", None, 11, 14, 0, 17, None, "10+12", "Amusement"],
        [9, "EP02_02", None, 250, 270, 0, 299, None, "4+7", "repression"],
    ]
    headings = ["Subject", "Filename", None, "OnsetF", "ApexF1", "ApexF2", "OffsetF", None, "AUs"]
    workbook(root / "CASME.xlsx", [*headings, "Emotion"], rows)
    first, second = (root / section for section in (sections * 2)[:2])
    for folder, id, numbers, peak in (
        (first, "sub01/EP01_5", range(73, 82), 76),
        (first, "sub01/EP01_8", range(1, 10), 4),
        (second, "sub09/EP02_01", range(11, 18), 14),
        (second, "sub09/EP02_02", range(100, 150), 120),
    ):
        clip(folder / id, numbers, name.format(id.split("/")[1]), peak)
    litter(root)


def casme_sq(root, place="selectedpic"):
    """The folders of expressions, or whole recordings; four micro-expressions, one without an
    offset, and a macro-expression. Subjects 1 and 2 of the sheet are s15 and s16."""
    recorded = place == "rawpic"
    subjects = [[15, "s15", 1], [16, "s16", 2]]
    films = [["0101", "disgust1"], [401, "happy1"]]
    rows = [
        [1, "disgust1_1", 52, 55, 59, "4+7", "negative", "micro-expression", "disgust"],
        [1, "disgust1_2", 90, 94, 0, "4", "Negative", "micro-expression", "disgust"],
        [1, "happy1_1", 11, 15, 40, "6+12", "positive", "macro-expression", "happiness"],
        [2, "happy1_1", 11, 14, 18, "12", "positive", "micro-expression", "happiness"],
        [2, "happy1_2", 31, 35, 38, "25", "other", "micro-expression", "happiness"],
    ]
    path = root / "CAS(ME)^2code_final(Updated).xlsx"
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    pages = {"CASFEcode_final": rows, "naming rule1": subjects, "naming rule2": films}
    for title, lines in pages.items():
        page = book.create_sheet(title)
        for line in lines:
            page.append(line)
    book.save(path)
    clips = {
        "s15/disgust1_1": (range(52, 60), 55),
        "s15/disgust1_2": (range(90, 101), 94),
        "s15/happy1_1": (range(11, 41), 15),
        "s16/happy1_1": (range(11, 19), 14),
        "s16/happy1_2": (range(31, 39), 35),
    }
    if recorded:
        clips = {
            "s15/15_0101disgustingteeth": (range(1, 111), 55),
            "s15/15_0401girlcrash": (range(1, 61), 15),
            "s16/16_0401girlcrash": (range(1, 61), 14),
        }
    for id, (numbers, peak) in clips.items():
        folder = id[1:] if place == "cropped" else id  # the subjects of cropped have no s
        clip(root / place / place / folder, numbers, "img{}.jpg", peak)
    litter(root)


def casme3(root, cut_out=False):
    """Whole recordings beside depth, or folders of expressions; two of one recording, one whose
    onset is its apex, one whose offset is before its onset, and one beyond its recording."""
    headings = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class"]
    rows = [
        ["spNO.1", "a", 55, 58, 62, "4", "IV", "disgust"],
        ["spNO.1", "a", 80, 80, 88, "12", "I", "Happy"],
        ["spNO.2", "b", 31, 35, 24, "1+2", "II", "surprise"],
        ["spNO.10", "m", 6470, 7, 12, "?", "VII", "Others"],
    ]
    workbook(
        root / "annotation" / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        [*headings, "emotion"],
        rows,
    )
    workbook(root / "annotation" / "cas(me)3_part_A_MaE_label_JpgIndex_v2.xlsx", headings, [])
    clips = {
        "spNo.1_a_55": (range(55, 63), 58),
        "spNo.1_a_80": (range(80, 89), 84),
        "spNo.2_b_31": (range(24, 39), 35),
        "spNo.10_m_6470": (range(4, 13), 7),
    }
    whole = {
        "spNO.1/a": (range(1, 101), (58, 84)),
        "spNO.2/b": (range(20, 39), (35,)),
        "spNO.10/m": (range(4, 13), (7,)),
    }

    def swing(peaks):
        return lambda n: picture(max(0, 100 - 10 * min(abs(n - peak) for peak in peaks)))

    if cut_out:
        for name, (numbers, peak) in clips.items():
            home = root / "Part_A_ME_clip"
            clip(home / "frame" / name, numbers, "{}.jpg", peak)
            clip(home / "depth" / name, numbers, "{}.png")
    else:
        for name, (numbers, peaks) in whole.items():
            clip(root / "data" / "ME_A" / name / "color", numbers, "{}.jpg", image=swing(peaks))
            clip(root / "data" / "ME_A" / name / "depth", numbers, "{}.png")
    litter(root)


def dfme(root, form="{subject}/{name}", sheet=".csv"):
    """Frames by subject or by clip alone, and the sheet as CSV or as a workbook; one row has its
    apex after its offset."""
    headings = ["Subject", "Filename", "FrameRate", "Onset", "Apex", "Offset", "Emotion", "AU"]
    rows = [
        [7, "7_1", 200, 3, 6, 9, "happiness", "12"],
        [7, "7_2", 300, 3, 30, 9, "Contempt", "R14"],
        [612, "612_1", 500, 1, 4, 8, "sadness", "15"],
    ]
    path = root / f"DFME_annotations{sheet}"
    if sheet == ".csv":
        lines = [",".join(map(str, row)) for row in (headings, *rows)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    else:
        workbook(path, headings, rows)
    for subject, name, *_ in rows:
        clip(root / form.format(subject=f"{subject:03d}", name=name), range(1, 11), "{}.jpg", 6)
    litter(root)


def fourdme(root, places=("",), flags=True):
    """Frames alone or in a folder for each modality; classes by flags or by a word; one row is of
    two classes, one has no apex."""
    headings = ["sub_ID", "fold_name", "Onset", "Apex", "Offset", "AUs", "Emotion"]
    names = ["Positive", "Negative", "Surprise", "Repression", "Others"]
    rows = [
        [1, "1_01", 11, 14, 19, "AU12", "Positive"],
        [1, "1_02", 11, None, 19, "AU4(k)+AU7", "Negative"],
        [23, "23_01", 11, 14, 19, "AU1+AU12", "Positive+Surprise"],
        [23, "23_02", 11, 15, 19, "AU1+AU2", "Surprise"],
    ]
    flagged = [[*row, *(int(name in row[-1]) for name in names)] for row in rows]
    workbook(root / "4DME.xlsx", headings + names * flags, flagged if flags else rows)
    for place in places:
        for subject, name, *_ in rows:
            clip(root / place / f"{subject:02d}" / name, range(11, 21), "{}.jpg", 14)
    litter(root)


SMIC = {  # id: class, numbers of the frames, position of the apex
    "s01/s01_ne_01": ("negative", range(17001, 17010), 4),
    "s01/s01_sur_02": ("surprise", range(998, 1004), 2),
    "s03/s03_po_05": ("positive", range(1, 8), 5),
    "s20/s20_ne_11": ("negative", (5, 6), 1),
}


def smic(root, home="SMIC_all_cropped/HS", raw=False):
    """SMIC's clips, changing up to the apex and back; s02_po_01 of one frame, s02_po_02 of none,
    and a clip that is no micro-expression."""
    clips = {**SMIC, "s02/s02_po_01": ("positive", (1,), 0), "s02/s02_po_02": ("positive", (), 0)}
    for id, (emotion, numbers, apex) in clips.items():
        subject, name = id.split("/")
        folder = root / home / subject / "micro" / emotion / name
        folder.mkdir(parents=True)
        for position, number in enumerate(numbers):
            level = 100 - 10 * abs(position - apex)
            image = person(mouth=level / 100) if raw else picture(level)
            assert cv2.imwrite(str(folder / f"reg_image{number:06d}.bmp"), image[..., ::-1])
    clip(root / home / "s01" / "non_micro" / "non_micro" / "s01_non_01", range(1, 4))
    litter(root / home)


def megc2019(root):
    """Each dataset of the composite in a folder of its name."""
    casme2(root / "casme2", 2014, 2019)
    samm(root / "samm")
    smic(root / "smic")


ALL = {
    "dfew": dfew,
    "ferv39k": ferv39k,
    "afew": afew,
    "casme2": lambda root: casme2(root, 2014, 2019),
    "samm": samm,
    "mmew": mmew,
    "smic": smic,
    "mafw": mafw,
    "casme": casme,
    "casme_sq": casme_sq,
    "casme3": casme3,
    "dfme": dfme,
    "4dme": fourdme,
}
"""Each writes its miniature into a folder that is there; `python tests/support/miniatures.py
FOLDER` does so for all."""

if __name__ == "__main__":
    for name, build in ALL.items():
        home = pathlib.Path(sys.argv[1], name)
        home.mkdir(parents=True)
        build(home)
        print(home)
