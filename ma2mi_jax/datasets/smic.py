"""SMIC-HS: 16 subjects, 100 frames a second, no sheet and no apex: `HS/s01/micro/negative/s01_ne_01/reg_image017001.bmp`."""

import dataclasses
from collections.abc import Callable

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder, frame_number
from ma2mi_jax.datasets.common import disk, micro
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "HS/s01/micro/<negative, positive or surprise>/s01_ne_01/reg_image017001.bmp"
CLASSES = {"negative": 70, "positive": 51, "surprise": 43}  # 164
DATASET = micro.Traits("smic", CLASSES, "s{:02d}", fps=100)


def read(
    root: str,
    *,
    cache: str,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the micro folders; the folder of a clip is its class. Arguments as of `casme2.read`.

    A clip holds its micro-expression and no more: onset and offset are its first and last frame, the apex is estimated. Frames that are
    crops already stay as they are.

    Raises:
      UserError: the frames are not there, or no clip can be used.
    """
    frames = disk.find(root, "SMIC_all_cropped", "HS")
    folders: dict[str, ImageFolder] = {}
    rows = []
    for path, images in (disk.clip_folders(frames, 4, cache=cache) if frames else {}).items():
        subject, kind, emotion, name = path.split("/")
        if kind.lower() == "micro":
            folders[f"{DATASET.subject_name(subject) or subject}/{name}"] = images
            numbers = [
                str(n) for file in images.names if (n := frame_number(file)) is not None
            ] or [""]
            place = {"onsetframe": numbers[0], "apexframe": "", "offsetframe": numbers[-1]}
            rows.append(
                {"subject": subject, "filename": name, "estimatedemotion": emotion, **place}
            )
    if not any(map(len, folders.values())):
        raise disk.not_found("--target=smic", root, SHOWN)
    source = micro.read(
        DATASET,
        rows,
        folders,
        sheet=frames,
        cropped=None,
        cache=cache,
        detector=detector,
        progress=progress,
    )
    return dataclasses.replace(source, annotations="")


READER = Reader(
    "smic",
    "SMIC",
    kind="target",
    read=read,
    takes=("detector",),
    published=sum(CLASSES.values()),
)
