"""CASME (Yan et al., "CASME Database: A Dataset of Spontaneous Micro-Expressions Collected from
Neutralized Faces", FG 2013, doi:10.1109/FG.2013.6553799): 19 subjects, 60 frames a second, in two
sections of different size.

  Section A/sub01/EP01_5/EP01_5-46.jpg      raw, or
  Cropped/sub01/EP01_5/reg_EP01_5-46.jpg    cropped, with or without the folders of the sections
  <the only .xlsx, or CASME….xlsx>          the sheet, with two columns of apices

The first apex of a row is taken. Five rows disagree with their folders. Which ones is known by
their places in one copy of the sheet alone. So no correction is applied, and the rules of
`micro.py` mend them.
"""

from collections.abc import Callable, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "sub01/<clip>/*.jpg, alone or in folders such as Cropped or Section A"
CLASSES = dict.fromkeys(
    ("amusement", "disgust", "surprise", "contempt", "fear", "sadness", "repression", "tense")
)
TRAITS = micro.Traits("casme", CLASSES, "sub{:02d}", fps=60, rebases=True)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of all eight emotions. Frames that are face crops already stay as they are.

    Cropped frames are read if there are any, otherwise the raw ones.

    The arguments and the errors are those of `casme2.read`.
    """
    for home in filter(None, (disk.find(root, "Cropped"), root)):
        places = micro.subjects_folders(home, "sub[0-9]+")
        if folders := _clips(places, cache):
            break
    else:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, places[0], r"CASME(?![23I])", annotations)
    return micro.read(
        TRAITS,
        sheets.read(sheet),
        folders,
        sheet=sheet,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _clips(places: Sequence[str], cache: str) -> dict[str, ImageFolder]:
    """The clips of all sections by id; none if there is no image."""
    clips: dict[str, ImageFolder] = {}
    for place in places:
        for id, frames in micro.clips_by_subject(TRAITS, place, cache=cache).items():
            if len(frames) or id not in clips:
                clips[id] = frames
    return clips


READER = Reader(
    "casme",
    "CASME",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    class_sets={8: None},
)
