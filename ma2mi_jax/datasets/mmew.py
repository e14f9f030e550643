"""MMEW: 30 subjects, 90 frames a second: `Micro_Expression/<emotion>/S13-07-001/1.jpg`, or with a subject's folder around the emotion's."""

from collections.abc import Callable

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = (
    "Micro_Expression/<emotion>/<clip>/1.jpg or Micro_Expression/<subject>/<emotion>/<clip>/1.jpg"
)
CLASSES = {
    "happiness": 36,
    "surprise": 89,
    "disgust": 72,
    "sadness": 13,
    "anger": 8,
    "fear": 16,
}  # the paper's 234
DATASET = micro.Traits("mmew", CLASSES, "S{:02d}", fps=90, rebases=True)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's six classes; arguments and errors as of `casme2.read`. Frames that are crops already stay as they are.

    A clip is known by its folder's name, which begins with the subject's: what the folders around it are called does not matter.
    """
    frames = disk.find(root, "Micro_Expression")
    folders = _clips(frames, cache) if frames else {}
    if not folders:
        raise disk.not_found("--target=mmew", root, SHOWN)
    sheet = micro.find_sheet("mmew", root, frames, "MMEW_Micro", annotations)
    return micro.read(
        DATASET,
        sheets.read(sheet),
        folders,
        sheet=sheet,
        cropped=None,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _clips(frames: str, cache: str) -> dict[str, ImageFolder]:
    clips = {}
    for depth in (2, 3):
        for path, images in disk.clip_folders(frames, depth, cache=cache).items():
            name = path.rpartition("/")[2]
            if len(images) and (subject := DATASET.subject_name(name.partition("-")[0])):
                clips.setdefault(f"{subject}/{name}", images)
    return clips


READER = Reader(
    "mmew",
    "MMEW",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    published=sum(CLASSES.values()),
    protocol="kfold",
    k=5,
)
