"""DFME (Zhao et al., "DFME: A New Benchmark for Dynamic Facial Micro-expression Recognition", IEEE
Transactions on Affective Computing 2023, doi:10.1109/TAFFC.2023.3341918): 7,526 clips of 656
subjects at 200, 300 or 500 frames a second, raw.

  <subject>/<clip>/*.jpg, or <clip>/*.jpg    frames, at most four levels below the root
  <…>.csv or <…>.xlsx                        the sheet
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, listing, merged, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "<subject>/<clip>/*.jpg or <clip>/*.jpg"
DEPTHS = (1, 2, 3, 4)  # levels below the root at which clips may lie
CLASSES = dict.fromkeys(
    ("happiness", "anger", "contempt", "disgust", "fear", "sadness", "surprise")
)
TRAITS = micro.Traits("dfme", CLASSES, "{:03d}", fps=0, rebases=True)


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the seven classes. Their frames per second are known if the sheet tells them.

    A row's folder is known by its name. If several folders have this name, it is the one in a
    folder of the row's subject.

    The arguments and the errors are those of `casme2.read`.
    """
    on_disk: dict[str, ImageFolder] = {}
    for depth in DEPTHS if os.path.isdir(root) else ():
        listed = listing.clip_folders(root, depth, cache=cache)
        on_disk |= {path: images for path, images in listed.items() if len(images)}
    if not on_disk:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, root, ".*(dfme|anno|label|cod)", annotations)
    rows = sheets.read(sheet)
    folders = _clips(on_disk, rows)
    found = micro.read(
        TRAITS,
        rows,
        folders,
        sheet=sheet,
        cache=cache,
        classes=classes,
        detector=detector,
        progress=progress,
    )
    paths = {images.folder: path for path, images in on_disk.items()}
    layouts = collections.Counter(
        "<subject>/<clip>" if "/" in paths[images.folder] and _is_subject(paths[images.folder], id)
        else "<clip>"
        for id, images in folders.items()
    )  # fmt: skip
    told = ", ".join(f"{layout} {count}" for layout, count in sorted(layouts.items()))
    return dataclasses.replace(found, notes=(f"how the clips' folders lie: {told}", *found.notes))


def _clips(
    on_disk: Mapping[str, ImageFolder], rows: Sequence[Mapping[str, str]]
) -> dict[str, ImageFolder]:
    """The clips of the rows by id; a row with no folder, or with several, has none."""
    by_name = collections.defaultdict(list)
    for path in on_disk:
        by_name[path.rpartition("/")[2].lower()].append(path)
    clips = {}
    for row in rows:
        id = f"{TRAITS.subject_name(row['subject']) or row['subject']}/{row['filename']}"
        paths = by_name[row["filename"].lower()]
        if len(paths) > 1:
            paths = [path for path in paths if _is_subject(path, id)]
        if len(paths) == 1:
            clips[id] = on_disk[paths[0]]
    return clips


def _is_subject(path: str, id: str) -> bool:
    """Whether the folder around a clip is that of the subject in the clip's id."""
    around = path.rpartition("/")[0].rpartition("/")[2]
    return TRAITS.subject_name(around) == id.partition("/")[0]


READER = Reader(
    "dfme",
    "DFME",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(CLASSES), 7: None},
    published=7526,
    protocol="kfold",
    k=10,
)
