"""MMEW (Ben et al., "Video-based Facial Micro-Expression Analysis: A Survey of Datasets, Features
and Algorithms", IEEE Transactions on Pattern Analysis and Machine Intelligence): 30 subjects, 90
frames a second, 1920 x 1080, or cropped.

  Micro_Expression/anger/S13-07-001/1.jpg         emotion, clip
  Micro_Expression/S13/anger/S13-07-001/1.jpg     or with a folder for each subject around it
  MMEW_Micro_Exp.xlsx                             the sheet
"""

from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, listing, merged, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = (
    "Micro_Expression/<emotion>/<clip>/1.jpg or Micro_Expression/<subject>/<emotion>/<clip>/1.jpg"
)
CLASSES = {  # the paper's 234
    "happiness": 36,
    "surprise": 89,
    "disgust": 72,
    "sadness": 13,
    "anger": 8,
    "fear": 16,
}
TRAITS = micro.Traits("mmew", CLASSES, "S{:02d}", fps=90, rebases=True)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's six classes. Frames that are face crops already stay as they are.

    The arguments and the errors are those of `casme2.read`.
    """
    frames = disk.find(root, "Micro_Expression")
    folders = _clips(frames, cache) if frames else {}
    if not folders:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, frames, "MMEW_Micro", annotations)
    return micro.read(
        TRAITS,
        sheets.read(sheet),
        folders,
        sheet=sheet,
        cache=cache,
        classes=classes,
        detector=detector,
        progress=progress,
    )


def _clips(frames: str, cache: str) -> dict[str, ImageFolder]:
    """The clips by id.

    The name of a clip's folder begins with its subject. So it does not matter what the folders
    around it are called.
    """
    clips = {}
    for depth in (2, 3):
        for path, images in listing.clip_folders(frames, depth, cache=cache).items():
            name = path.rpartition("/")[2]
            subject = TRAITS.subject_name(name.partition("-")[0])
            if len(images) and subject:
                clips.setdefault(f"{subject}/{name}", images)
    return clips


READER = Reader(
    "mmew",
    "MMEW",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(CLASSES), 6: None},
    published=sum(CLASSES.values()),
    protocol="kfold",
    k=5,
)
