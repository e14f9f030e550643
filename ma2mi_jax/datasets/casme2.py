"""CASME II (Yan et al., "CASME II: An Improved Spontaneous Micro-Expression Database and the
Baseline Evaluation", PLoS ONE 2014, doi:10.1371/journal.pone.0086041): 26 subjects, 200 frames a
second, 640 x 480, or cropped to 280 x 340.

  Cropped/sub01/EP02_01f/reg_img46.jpg              cropped
  CASME2_RAW_selected/sub01/EP02_01f/img46.jpg      raw
  CASME2-coding-20140508.xlsx, CASME2-coding-20190701.xlsx    two editions of the sheet
"""

import dataclasses
from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, merged, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "Cropped/sub01/<clip>/reg_img1.jpg or CASME2_RAW_selected/sub01/<clip>/img1.jpg"
CROPPED = ("Cropped", "Cropped-updated")
RAW = ("CASME2_RAW_selected", "CASME2-RAW", "CASME2_RAW")
CLASSES_2019 = {  # the paper's 249
    "happiness": 32,
    "disgust": 63,
    "repression": 27,
    "surprise": 28,
    "others": 99,
}
THREE = {"happiness": 32, "disgust": 63, "repression": 27, "surprise": 25}  # by that of 2014
CLASSES_2014 = {**CLASSES_2019, "surprise": 25}  # 246
TRAITS = micro.Traits("casme2", CLASSES_2019, "sub{:02d}", fps=200)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the paper's five classes.

    The cropped frames are read if there are any, otherwise the raw ones. If both sheets are there,
    that of 2019 is read.

    Args:
      root: the folder that holds the frames, and the sheet unless `annotations` names one.
      cache: folder for what is found out about the clips.
      annotations: path of the sheet; None finds it.
      classes: other emotions than the paper's classes, each with the number of clips published.
      detector: finds the faces in raw frames; None is `faces.haar()`.
      progress: called as progress(done, total) with the clips that are searched for faces.

    Raises:
      UserError: frames or sheet are not there or cannot be read, or no row can be used.
    """
    for name in (*CROPPED, *RAW):
        frames = disk.find(root, name)
        if folders := micro.clips_by_subject(TRAITS, frames, cache=cache):
            break
    else:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, frames, "CASME2-coding", annotations)
    rows = sheets.read(sheet)
    of_2014 = "objectiveclasses" not in rows[0]
    found = micro.read(
        TRAITS,
        rows,
        folders,
        sheet=sheet,
        cache=cache,
        classes=classes or (CLASSES_2014 if of_2014 else None),
        cropped=name in CROPPED,
        detector=detector,
        progress=progress,
    )
    if not of_2014 or classes:
        return found
    note = "the sheet of 2014, by which N is 246: the paper's 249 is by that of 2019"
    return dataclasses.replace(found, notes=(note, *found.notes))


READER = Reader(
    "casme2",
    "CASME II",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(THREE), 5: None},
    published=sum(CLASSES_2019.values()),
)
