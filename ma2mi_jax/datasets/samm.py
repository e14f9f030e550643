"""SAMM (Davison et al., "SAMM: A Spontaneous Micro-Facial Movement Dataset", IEEE Transactions on
Affective Computing 2018): 29 subjects, 200 frames a second, 2040 x 1088, grey, far wider than the
face.

  006/006_1_2/006_05562.jpg       subject, clip, frame
  SAMM_Micro_FACS_Codes_v2.xlsx   the sheet
"""

from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, merged, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "006/006_1_2/006_05562.jpg"
CLASSES = {  # the paper's 136
    "happiness": 26,
    "anger": 57,
    "contempt": 12,
    "surprise": 15,
    "others": 26,
}
THREE = {  # the emotions of MEGC2019's three classes, 133
    "happiness": 26,
    "anger": 57,
    "contempt": 12,
    "disgust": 9,
    "fear": 8,
    "sadness": 6,
    "surprise": 15,
}
TRAITS = micro.Traits("samm", CLASSES, "{:03d}", fps=200)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's five classes. Frames that are face crops already stay as they are.

    The arguments and the errors are those of `casme2.read`.
    """
    places = micro.subjects_folders(root, "[0-9]{3}")
    frames, folders = micro.first_clips(TRAITS, places, cache=cache)
    if not folders:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, frames, "SAMM_Micro", annotations)
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


READER = Reader(
    "samm",
    "SAMM",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(THREE), 5: None},
    published=sum(CLASSES.values()),
)
