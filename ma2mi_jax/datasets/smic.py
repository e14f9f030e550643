"""SMIC-HS (Li et al., "A Spontaneous Micro-expression Database: Inducement, Collection and
Baseline", FG 2013): 16 subjects, 100 frames a second, 640 x 480, or cropped. It has no sheet, and
no apex is known.

  HS/s01/micro/negative/s01_ne_01/reg_image017001.bmp     subject, class, clip
"""

import dataclasses
import os
from collections.abc import Callable, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder, frame_number
from ma2mi_jax.datasets.common import disk, listing, micro
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "HS/s01/micro/<negative, positive or surprise>/s01_ne_01/reg_image017001.bmp"
CLASSES = {"negative": 70, "positive": 51, "surprise": 43}  # 164
TRAITS = micro.Traits("smic", CLASSES, "s{:02d}", fps=100)


def read(
    root: str,
    *,
    cache: str,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips in the folders called micro. The folder around a clip is its class.

    A clip holds its micro-expression and nothing else. So its onset and offset are its first and
    last frame; the apex is estimated. Frames that are face crops already stay as they are.

    The arguments are those of `casme2.read`.

    Raises:
      UserError: the frames are not there, or no clip can be used.
    """
    for frames in _places(root):
        listed = listing.clip_folders(frames, 4, cache=cache)
        if any(map(len, listed.values())):
            break
    else:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    folders: dict[str, ImageFolder] = {}
    rows = []  # as of a sheet
    paths, twice = _once(listed)
    for id, path in paths.items():
        subject, _, emotion, name = path.split("/")
        folders[id] = images = listed[path]
        numbers = [str(n) for file in images.names if (n := frame_number(file)) is not None]
        rows.append(
            {
                "subject": subject,
                "filename": name,
                "estimatedemotion": emotion,
                "onsetframe": numbers[0] if numbers else "",
                "apexframe": "",
                "offsetframe": numbers[-1] if numbers else "",
            }
        )
    if not any(map(len, folders.values())):
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    found = micro.read(
        TRAITS,
        rows,
        folders,
        sheet=frames,
        cache=cache,
        detector=detector,
        progress=progress,
    )
    set_aside = sorted((*found.set_aside, *twice), key=lambda each: each.id)
    return dataclasses.replace(found, annotations="", set_aside=tuple(set_aside))


def _once(listed: Mapping[str, ImageFolder]) -> tuple[dict[str, str], list[SetAside]]:
    """The paths of the micro-expressions by id, and the others of the same subject and name.

    Of several the first counts that holds two frames.
    """
    of_id: dict[str, list[str]] = {}
    for path in listed:
        subject, kind, _, name = path.split("/")
        if kind.lower() == "micro":
            of_id.setdefault(f"{TRAITS.subject_name(subject) or subject}/{name}", []).append(path)
    paths, twice = {}, []
    for id, several in of_id.items():
        first = next((path for path in several if len(listed[path]) >= 2), several[0])
        paths[id] = first
        twice += [
            SetAside(id, f"there are several of its name: {path} is passed over, {first} counts")
            for path in several
            if path != first
        ]
    return paths, twice


def _places(root: str) -> list[str]:
    """The folders called HS, that of the cropped frames first."""
    beside = (disk.find(os.path.join(root, name), "HS") for name in disk.folders(root))
    found = (disk.find(root, "SMIC_all_cropped", "HS"), *beside)
    return list(dict.fromkeys(filter(None, found)))


READER = Reader(
    "smic",
    "SMIC",
    kind="target",
    read=read,
    takes=("detector",),
    class_sets={3: None},
    published=sum(CLASSES.values()),
)
