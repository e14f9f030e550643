"""Find the face of a clip, once: all its frames get the same crop, so that the motion of the face
survives.

A detector finds the faces in one image. `steady_box` makes one box from the faces found in several
frames of a clip. The boxes of detectors differ: those of Haar end just below the mouth, those of
YuNet at the chin. So each detector here turns its boxes into the same thing, the square that holds
the face from above the brows to below the chin.
"""

import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import cv2
import numpy as np

from ma2mi_jax.clips import yunet_model
from ma2mi_jax.clips.frames import Box
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import sha256

LOOKS = 12  # images of a clip that are searched, at least
PRESENCE = 0.5  # the least part of them that must show the face
# The least intersection over union of two sightings of one face. A head that moves by half its size
# still has 0.33.
OVERLAP = 0.25
COMING = 8  # of so many frames searched one must show a face that comes or goes in mid-clip
# Per cent of the sightings that may reach over the box on each side: a detector errs now and then.
STRAY = 10
LONGEST_SIDE = 640  # larger images are shrunk before the search, which costs time by the pixel
SMALLEST_PART = 12  # faces smaller than this part of the image's shorter side are not searched for
CASCADE = "haarcascade_frontalface_alt2.xml"

DetectorName = Literal["auto", "haar", "yunet"]
Align = Literal["none", "eyes"]
EYES = "+eyes"  # ends the name of a detector that tells how the eyes lie


@dataclasses.dataclass(frozen=True)
class Face:
    """A face seen in one image: the square from above the brows to below the chin, in pixels.

    Attributes:
      x, y: the centre of the square.
      size: its side.
      angle: degrees, clockwise as one looks at the image, from the horizontal to the line through
        the eyes; 0 if the crop is not to be turned.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds the faces in an image, from any thread.

    Attributes:
      name: the detector, its model, and whether it tells how the eyes lie. What a cache keeps, and
        what prepared data and runs record, was found by the detector of that name.
      find: from an image, uint8 RGB (h, w, 3), to its faces.
      why: how it came to be this one, in words.
    """

    name: str
    find: Callable[[np.ndarray], Sequence[Face]]
    why: str = ""

    def __call__(self, image: np.ndarray) -> Sequence[Face]:
        return self.find(image)


class Deferred(Detector):
    """A detector that is chosen when it is first needed: frames that are face crops need none.

    `choose()` returns the detector that is meant.
    """

    def __init__(self, choose: Callable[[], Detector]):
        object.__setattr__(self, "_choose", functools.cache(choose))  # the class is frozen
        object.__setattr__(self, "_lock", threading.Lock())

    @property
    def used(self) -> bool:
        """Whether it has been needed."""
        return self._choose.cache_info().currsize > 0

    def _chosen(self) -> Detector:
        with self._lock:  # several threads may be the first
            return self._choose()

    name = property(lambda self: self._chosen().name)
    find = property(lambda self: self._chosen().find)
    why = property(lambda self: self._chosen().why)


def detector(
    name: DetectorName = "auto",
    model: str | None = None,
    align: Align = "none",
    cache: str | os.PathLike | None = None,
) -> Detector:
    """The detector of that name.

    Args:
      name: `yunet` needs a model file, `haar` an OpenCV below 5; `auto` is YuNet where its model is
        at hand, else Haar.
      model: the model file of YuNet. None is that of `cache`, of the hub's cache, or of the hub.
      align: `eyes` has the crop turned so that the eyes are level; only YuNet tells where they are.
      cache: a folder that may hold YuNet's model file.

    Raises:
      UserError: there is no such detector on this machine, `model` is not what it needs, or it does
        not see eyes.
    """
    if name not in ("auto", "haar", "yunet"):
        raise UserError("[detector={name}]: not a detector; give auto, haar or yunet", name=name)
    if model is not None and name == "haar":
        raise UserError(
            "[detector_model={model}] is only for YuNet; remove [detector=haar], or "
            "[detector_model]",
            model=model,
        )
    file, why = model, "its model was given"
    if model is None:
        file, why = (None, "haar was asked for") if name == "haar" else yunet_model.find(cache)

    if file is not None:
        return dataclasses.replace(yunet(str(file), align), why=why)
    if name == "yunet":
        raise UserError(
            "[detector=yunet]: {why}; give that file as [detector_model], or [detector=haar]",
            why=why,
        )
    if align == "eyes":
        raise UserError(
            "[align=eyes]: needs YuNet, for the haar detector does not see the eyes ({why}); give "
            "[detector_model={file}]",
            why=why,
            file=yunet_model.FILE,
        )
    if name == "auto" and _cascade() is None:
        raise UserError(
            "[detector=auto]: OpenCV {version} of this machine has no {cascade}, and {why}; give "
            "[detector_model={file}], or install opencv-python-headless below 5",
            version=cv2.__version__,
            cascade=CASCADE,
            why=why,
            file=yunet_model.FILE,
        )
    return dataclasses.replace(haar(), why=why)


def like(name: str, model: str | None, cache: str | os.PathLike | None) -> Detector:
    """The detector that prepared data or a run recorded under `name`; `model` and `cache` as for
    `detector`.

    Raises:
      UserError: it is not on this machine.
    """
    kind: DetectorName = "yunet" if name.startswith("yunet") else "haar"
    if kind == "yunet" and model is None:
        file, why = yunet_model.find(cache)
        if file is None:
            raise UserError(
                "[detector_model]: the faces that the run saw were found by {name}, and {why}; "
                "give that file, or choose another [detector] and [align]: then the crops differ",
                name=name,
                why=why,
            )
        model = str(file)
    found = detector(kind, None if kind == "haar" else model, align_of(name), cache)
    if found.name != name:
        raise UserError(
            "[detector_model={model}]: the faces that the run saw were found by {name}, and this "
            "is {found}; give that model, or choose another [detector] and [align]: then the crops "
            "differ",
            model=model or yunet_model.FILE,
            name=name,
            found=found.name,
        )
    return found


def align_of(name: str) -> Align:
    """Whether the detector of that name has crops turned."""
    return "eyes" if name.endswith(EYES) else "none"


def _cascade() -> str | None:
    """The file of Haar's cascade; None if OpenCV comes without it, or cannot use it."""
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = os.path.join(folder, CASCADE)
    return path if hasattr(cv2, "CascadeClassifier") and os.path.isfile(path) else None


def haar() -> Detector:
    """Frontal faces by OpenCV's boosted cascade `frontalface_alt2`.

    At five neighbours it has next to no false alarms. Its box reaches from the middle of the
    forehead to just under the mouth. In the videos it was tuned on (speakers, signers, a webcam)
    the chin is below the end of the box by 0.15 of its size, and by more when the jaw drops. So the
    square is 1.3 times as large, and its centre is lower by 0.08.

    Raises:
      UserError: OpenCV comes without cascades, as version 5 and that of some systems do.
    """
    path = _cascade()
    if path is None:
        raise UserError(
            "[detector=haar]: OpenCV {version} of this machine has no {what}; install "
            "opencv-python-headless below 5, or give [detector=yunet]",
            version=cv2.__version__,
            what=CASCADE,
        )

    def find(cascade: cv2.CascadeClassifier, image: np.ndarray) -> list[Face]:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        least = max(24, min(gray.shape) // SMALLEST_PART)
        boxes = cascade.detectMultiScale(
            gray, scaleFactor=1.1, minNeighbors=5, minSize=(least, least)
        )
        return [
            Face(left + 0.5 * side, top + 0.58 * side, 1.3 * side)
            for left, top, side, _ in np.reshape(boxes, (-1, 4)).tolist()
        ]

    return Detector(
        "haar", _shrunk(_by_thread(functools.partial(cv2.CascadeClassifier, path), find))
    )


def yunet(model: str, align: Align = "none") -> Detector:
    """Faces by the YuNet network, whose box reaches from above the brows to the chin.

    Args:
      model: `face_detection_yunet_*.onnx` of the OpenCV zoo.
      align: as for `detector`.

    Raises:
      UserError: there is no such file, or it is not a YuNet model.
    """
    make = functools.partial(cv2.FaceDetectorYN.create, model, "", (320, 320), score_threshold=0.7)
    if not os.path.isfile(model):
        raise UserError(
            "[detector_model={model}]: no such file; download face_detection_yunet_*.onnx from the "
            "OpenCV zoo, or give [detector=haar]",
            model=model,
        )
    try:
        make()
    except cv2.error as error:
        raise UserError(
            "[detector_model={model}]: OpenCV cannot load it as a YuNet model ({reason}); give "
            "face_detection_yunet_*.onnx of the OpenCV zoo",
            model=model,
            reason=error.err,
        ) from None

    def find(net: cv2.FaceDetectorYN, image: np.ndarray) -> list[Face]:
        net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return [_face(row, align) for row in ([] if rows is None else rows.tolist())]

    name = f"yunet:{sha256(model)[:12]}" + (EYES if align == "eyes" else "")
    return Detector(name, _shrunk(_by_thread(make, find)))


def _face(row: Sequence[float], align: Align) -> Face:
    """The face of a row of YuNet's: its box, the person's right eye, the left eye, and more."""
    left, top, width, height, x, y, other_x, other_y = row[:8]
    level = align == "none"
    angle = 0.0 if level else math.degrees(math.atan2(other_y - y, other_x - x))
    return Face(left + width / 2, top + height / 2, 1.2 * max(width, height), angle)


def _by_thread(make, find):
    """`find(tool, image)`, where each thread has a tool of its own, made by `make()`.

    OpenCV's detectors have scratch memory and cannot be shared by threads.
    """
    local = threading.local()

    def find_here(image):
        if not hasattr(local, "tool"):
            local.tool = make()
        return find(local.tool, image)

    return find_here


def _shrunk(find):
    """`find` on an image shrunk to LONGEST_SIDE; the faces are in pixels of the image as given."""

    def find_shrunk(image):
        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        if scale < 1.0:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return [
            dataclasses.replace(f, x=f.x / scale, y=f.y / scale, size=f.size / scale)
            for f in find(image)
        ]

    return find_shrunk


def spread(count: int, most: int = LOOKS) -> list[int]:
    """Positions of the frames to search in `count` frames: all of them, or `most` of them that are
    spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def steady_box(looks: Sequence[Sequence[Face]]) -> Box | None:
    """One square box for the whole clip, from the faces seen in several of its frames.

    If there are several people, the one whose face is largest and most often seen counts. The box
    is the smallest square that holds this face in all these frames, except STRAY per cent of them
    on each side. So it is tight for a head at rest, and wide enough for a head that moves. It may
    reach over the border of the frame. It is turned by the median angle of the eyes.

    Args:
      looks: the faces of each frame that was searched.

    Returns:
      The box, or None if less than PRESENCE of the frames show the face.
    """
    seen = list(_steadiest(looks).values())
    if not seen or len(seen) < PRESENCE * len(looks):
        return None
    angle = float(np.median([f.angle for f in seen]))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    # in a frame turned so that the eyes are level
    x, y, half = np.array([(f.x, f.y, f.size / 2) for f in seen]).T
    x, y = cos * x + sin * y, cos * y - sin * x
    left, top = np.percentile([x - half, y - half], STRAY, axis=1)
    right, bottom = np.percentile([x + half, y + half], 100 - STRAY, axis=1)
    size = max(right - left, bottom - top)

    # and back
    x, y = (left + right) / 2, (top + bottom) / 2
    x, y = cos * x - sin * y, cos * y + sin * x
    return Box(round(x - size / 2), round(y - size / 2), round(size), round(angle, 2))


def stretch(looks: Sequence[Sequence[Face]]) -> tuple[int, int] | None:
    """The looks at which a clip's face comes and goes, if it is there for a part of the clip only.

    Args:
      looks: as for `steady_box`.

    Returns:
      The positions of the first look that shows it and of the last, or None if fewer than two do,
      or fewer than one of COMING.
    """
    seen = _steadiest(looks)
    return (min(seen), max(seen)) if len(seen) >= max(2, len(looks) / COMING) else None


def _steadiest(looks: Sequence[Sequence[Face]]) -> Mapping[int, Face]:
    """The sightings, by position in `looks`, of the face that is largest and most often seen."""
    follows = [_follow(face, looks) for faces in looks for face in faces]
    return max(follows, key=lambda seen: sum(f.size for f in seen.values()), default={})


def _follow(face: Face, looks: Sequence[Sequence[Face]]) -> dict[int, Face]:
    """The sightings of `face`: in each frame the one that overlaps it most, if that is enough."""
    best = {
        i: max(faces, key=lambda f: _overlap(f, face)) for i, faces in enumerate(looks) if faces
    }
    return {i: f for i, f in best.items() if _overlap(f, face) >= OVERLAP}


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two squares."""
    width, height = (
        max(0.0, min(p + a.size / 2, q + b.size / 2) - max(p - a.size / 2, q - b.size / 2))
        for p, q in ((a.x, b.x), (a.y, b.y))
    )
    return width * height / (a.size**2 + b.size**2 - width * height)
