"""4DME (Li et al., "4DME: A Spontaneous 4D Micro-Expression Dataset With Multimodalities", IEEE
Transactions on Affective Computing 2022, doi:10.1109/TAFFC.2022.3182342): micro-expressions in
several modalities of video, of which one is read.

  <subject>/<clip>/*.jpg, alone or in a folder for each modality    frames
  <…>.xlsx                                                          the sheet
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "<subject>/<clip>/*.jpg, alone or in a folder of a modality"
NAMES = ("positive", "negative", "surprise", "repression", "others")
CLASSES = dict.fromkeys(NAMES)
TRAITS = micro.Traits("4dme", CLASSES, "{:02d}", fps=60, rebases=True)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of one class each. A row of several classes at once is left out, and told.

    If there are several modalities, the first by name that has frames is read.

    The arguments and the errors are those of `casme2.read`.
    """
    places = micro.subjects_folders(root, "(sub|s)?_?[0-9]+")
    place, folders = micro.first_clips(TRAITS, places, cache=cache)
    if not folders:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, place, ".*4dme", annotations)
    rows = sheets.read(sheet)
    flagged = all(name in rows[0] for name in NAMES)
    found = micro.read(
        TRAITS,
        [row | {"estimatedemotion": _emotion(row, flagged)} for row in rows],
        folders,
        sheet=sheet,
        cache=cache,
        detector=detector,
        progress=progress,
    )
    beside = ", ".join(os.path.basename(other) for other in places if other != place)
    notes = [
        f"frames read from {os.path.basename(place)}" + (f"; not read: {beside}" if beside else ""),
        f"classes by the sheet's {'columns of flags' if flagged else 'column of emotions'}",
    ]
    return dataclasses.replace(found, notes=(*notes, *found.notes))


def _emotion(row: Mapping[str, str], flagged: bool) -> str:
    """The class of a row; several are joined by `+`, which is no class.

    Args:
      flagged: whether the sheet has a column for each class, which holds 0 or nothing where a row
        is not of it.
    """
    if flagged:
        return "+".join(name for name in NAMES if row[name] not in ("", "0"))
    words = re.findall("[a-z]+", row["estimatedemotion"].lower())
    words = ["others" if word == "other" else word for word in words]
    return "+".join(dict.fromkeys(words))


READER = Reader(
    "4dme",
    "4DME",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    class_sets={5: None},
)
