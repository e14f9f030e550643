"""SAMM: 29 subjects, 200 frames a second, grey and far wider than the face: `006/006_1_2/006_05562.jpg`."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "006/006_1_2/006_05562.jpg"
CLASSES = {
    "happiness": 26,
    "anger": 57,
    "contempt": 12,
    "surprise": 15,
    "others": 26,
}  # the paper's 136
DATASET = micro.Traits("samm", CLASSES, "{:03d}", fps=200)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's five classes; arguments and errors as of `casme2.read`. Frames that are crops already stay as they are."""
    frames = _subjects(os.path.abspath(root))
    folders = micro.clips_by_subject(DATASET, frames, cache=cache)
    if not folders:
        raise disk.not_found("--target=samm", root, SHOWN)
    sheet = micro.find_sheet("samm", root, frames, "SAMM_Micro", annotations)
    dataset = dataclasses.replace(DATASET, published=classes or CLASSES)
    return micro.read(
        dataset,
        sheets.read(sheet),
        folders,
        sheet=sheet,
        cropped=None,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _subjects(root: str) -> str | None:
    """The folder of the subjects' folders: `root` or one up to two levels below it."""
    level = [root]
    for _ in range(3):
        level = [disk.innermost(place) for place in level]
        for place in level:
            if any(re.fullmatch("[0-9]{3}", name) for name in disk.folders(place)):
                return place
        level = [os.path.join(place, name) for place in level for name in disk.folders(place)]
    return None


READER = Reader(
    "samm",
    "SAMM",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    published=sum(CLASSES.values()),
)
