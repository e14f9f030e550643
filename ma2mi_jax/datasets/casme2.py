"""CASME II: 26 subjects, 200 frames a second; cropped (`reg_img46.jpg`) or raw (`img46.jpg`), with the sheet of 2014 or of 2019."""

import dataclasses
from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "Cropped/sub01/<clip>/reg_img1.jpg or CASME2_RAW_selected/sub01/<clip>/img1.jpg"
CROPPED = ("Cropped", "Cropped-updated")
RAW = ("CASME2_RAW_selected", "CASME2-RAW", "CASME2_RAW")
CLASSES_2019 = {
    "happiness": 32,
    "disgust": 63,
    "repression": 27,
    "surprise": 28,
    "others": 99,
}  # the paper's 249
CLASSES_2014 = {**CLASSES_2019, "surprise": 25}  # 246


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's five classes; the cropped frames if they are there, else the raw ones; the sheet of 2019 if both are.

    Args:
      root: the folder that holds the frames, and the sheet unless `annotations` names it.
      cache: folder for what is found out about the clips.
      annotations: path of the sheet.
      classes: others than the paper's, with the number of clips published of each.
      detector: finds the faces in raw frames; None is `faces.haar()`.
      progress: called as progress(done, total).

    Raises:
      UserError: frames or sheet are not there or cannot be read, or no row can be used.
    """
    cropped = _first(root, CROPPED)
    frames = cropped or _first(root, RAW)
    dataset = micro.Traits("casme2", CLASSES_2019, "sub{:02d}", fps=200)
    folders = micro.clips_by_subject(dataset, frames, cache=cache)
    if not folders:
        raise disk.not_found("--target=casme2", root, SHOWN)
    sheet = micro.find_sheet("casme2", root, frames, "CASME2-coding", annotations)
    rows = sheets.read(sheet)
    old = "objectiveclasses" not in rows[0]
    dataset = dataclasses.replace(
        dataset, published=classes or (CLASSES_2014 if old else CLASSES_2019)
    )
    found = micro.read(
        dataset,
        rows,
        folders,
        sheet=sheet,
        cropped=bool(cropped),
        cache=cache,
        detector=detector,
        progress=progress,
    )
    notes = (
        ("the sheet of 2014, by which N is 246: the paper's 249 is by that of 2019",)
        if old and not classes
        else ()
    )
    return dataclasses.replace(found, notes=(*notes, *found.notes))


def _first(root: str, names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := disk.find(root, name))), None)


READER = Reader(
    "casme2",
    "CASME II",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    published=sum(CLASSES_2019.values()),
)
