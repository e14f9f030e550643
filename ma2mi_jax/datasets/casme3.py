"""Part A of CAS(ME)³ (Li et al., "CAS(ME)³: A Third Generation Facial Spontaneous Micro-Expression
Database with Depth Information and High Ecological Validity", IEEE Transactions on Pattern Analysis
and Machine Intelligence 2023, doi:10.1109/TPAMI.2022.3174895): 860 micro-expressions of 94
subjects, 30 frames a second, 1280 x 720. Depth is not read.

  spNO.1/a/color/355.jpg                        whole recordings, or
  Part_A_ME_clip/frame/spNo.1_a_355/355.jpg     an expression: subject, recording, onset
  cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx     the sheet

A recording holds several expressions. So a clip is called by its recording and its onset.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, listing, merged, micro, recordings, sheets
from ma2mi_jax.datasets.common.reader import ClassSet, Reader

SHOWN = "spNO.1/a/color/355.jpg or Part_A_ME_clip/frame/spNO.1_a_355/355.jpg"
SUBJECT = r"spno\.?[0-9]+"
CLASSES = dict.fromkeys(
    ("happiness", "disgust", "fear", "anger", "sadness", "surprise", "others")
)  # which the sheet calls happy and sad
FOUR = ClassSet(CLASSES, {**merged.three(CLASSES).class_of, "others": "others"})
TRAITS = micro.Traits("casme3", CLASSES, "spNO.{}", fps=30)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of all seven classes, cut from whole recordings if these lie there.

    The arguments and the errors are those of `casme2.read`.
    """
    for place in micro.subjects_folders(root, f"{SUBJECT}(_.+)?", depth=3):
        if os.path.basename(place).lower() == "depth":
            continue
        cut_out = not _holds_recordings(place)
        on_disk = listing.clip_folders(place, 1 if cut_out else 3, cache=cache)
        if any(map(len, on_disk.values())):
            break
    else:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, place, r"cas\(me\)\^?3_part_A_ME", annotations)
    rows = [
        row | {"filename": f"{row['filename']}_{row['onsetframe']}"} for row in sheets.read(sheet)
    ]
    found = micro.read(
        TRAITS,
        rows,
        _expressions(on_disk) if cut_out else _cut(on_disk, rows),
        sheet=sheet,
        cache=cache,
        classes=classes,
        detector=detector,
        progress=progress,
    )
    met = "folders of expressions" if cut_out else "whole recordings, from which clips are cut"
    note = f"frames read from {os.path.basename(place)}, which holds {met}"
    return dataclasses.replace(found, notes=(note, *found.notes))


def _holds_recordings(place: str) -> bool:
    """Whether a folder is called by a subject alone, as those of whole recordings are."""
    names = map(str.strip, disk.folders(place))
    return any(re.fullmatch(SUBJECT, name, re.IGNORECASE) for name in names)


def _expressions(on_disk: Mapping[str, ImageFolder]) -> dict[str, ImageFolder]:
    """The folders `spNo.1_a_355` by id."""
    clips = {}
    for name, images in on_disk.items():
        parts = re.fullmatch(rf"({SUBJECT})_(.+)", name, re.IGNORECASE)
        if parts:
            clips[f"{TRAITS.subject_name(parts[1])}/{parts[2]}"] = images
    return clips


def _cut(
    on_disk: Mapping[str, ImageFolder], rows: Sequence[Mapping[str, str]]
) -> dict[str, ImageFolder]:
    """The clips of the rows by id, cut from the recordings `spNO.1/a/color`."""
    whole = {}
    for path, images in on_disk.items():
        subject, recording, kind = path.split("/")
        if kind.lower() == "color":
            whole[TRAITS.subject_name(subject), recording.lower()] = images
    clips = {}
    for row in rows:
        subject = TRAITS.subject_name(row["subject"])
        recording = row["filename"].rpartition("_")[0]
        if (subject, recording.lower()) in whole:
            images = whole[subject, recording.lower()]
            clips[f"{subject}/{row['filename']}"] = recordings.cut(images, row, TRAITS.fps)
    return clips


READER = Reader(
    "casme3",
    "CAS(ME)³ part A",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(CLASSES), 4: FOUR, 7: None},
    published=860,
)
