"""Find the face of a clip, once: the same crop for all its frames, so that the motion of the face survives.

A detector says where faces are in one image; `steady_box` makes one box of what it says about several frames of a clip.
What a detector's own boxes mean differs (Haar's end at the mouth's corner height, YuNet's at the chin), so each detector here turns
them into the same thing: the square that holds the face from above the brows to below the chin.
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ma2mi_jax.clips.frames import Box
from ma2mi_jax.errors import UserError

LOOKS = 12  # images of a clip that are searched
PRESENCE = 0.5  # the least part of them that must show the face
OVERLAP = 0.25  # the least intersection over union of two sightings of one face; a head that moves by half its size still has 0.33
STRAY = 10  # per cent of the sightings that may reach over the box on each side: a detector errs now and then
LONGEST_SIDE = 640  # larger images are shrunk before the search, which costs time by the pixel
SMALLEST_PART = 12  # faces smaller than this part of the image's shorter side are not searched for


@dataclasses.dataclass(frozen=True)
class Face:
    """A face seen in one image: centre and side, in pixels, of the square from above the brows to below the chin."""

    x: float
    y: float
    size: float


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds the faces in an image, uint8 RGB (h, w, 3), from any thread; `name` tells detectors and their models apart in caches."""

    name: str
    find: Callable[[np.ndarray], Sequence[Face]]

    def __call__(self, image: np.ndarray) -> Sequence[Face]:
        return self.find(image)


def detector(name: str = "haar", model: str | None = None) -> Detector:
    """The detector called `name`: `haar` (comes with opencv) or `yunet` (wants its model file).

    Raises:
      UserError: an unknown name, no usable model file for `yunet`, or one for another.
    """
    if model is not None and name != "yunet":
        raise UserError(
            f"--detector-model={model}: of --detector=yunet alone; give that too, or leave the flag out"
        )
    if name == "haar":
        return haar()
    if name != "yunet":
        raise UserError(f"--detector={name}: not a detector; give haar or yunet")
    if model is None:
        raise UserError(
            "--detector=yunet: needs its model file; give --detector-model=face_detection_yunet.onnx, or --detector=haar"
        )
    return yunet(model)


def haar() -> Detector:
    """Frontal faces by opencv's boosted cascade `frontalface_alt2`, which has next to no false alarms at five neighbours.

    Its box runs from the middle of the forehead to just under the mouth. On the speakers, signers and the webcam it was tuned on
    the chin is 0.15 of the box below its end, more when the jaw drops: hence 1.3 times the size, moved down by 0.08.
    """
    path = os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml")

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


def yunet(model: str) -> Detector:
    """Faces by the YuNet network (`face_detection_yunet_*.onnx` of the opencv zoo); its box ends at the chin and above the brows.

    Raises:
      UserError: no such file, or not a YuNet model.
    """
    make = functools.partial(cv2.FaceDetectorYN.create, model, "", (320, 320), score_threshold=0.7)
    if not os.path.isfile(model):
        raise UserError(
            f"--detector-model={model}: no such file; download face_detection_yunet_*.onnx from the opencv zoo, or use --detector=haar"
        )
    try:
        make()
    except cv2.error as error:
        raise UserError(
            f"--detector-model={model}: opencv cannot load it as a YuNet model ({error.err}); give face_detection_yunet_*.onnx"
        ) from None

    def find(net: cv2.FaceDetectorYN, image: np.ndarray) -> list[Face]:
        net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        boxes = [] if rows is None else rows[:, :4].tolist()
        return [
            Face(left + width / 2, top + height / 2, 1.2 * max(width, height))
            for left, top, width, height in boxes
        ]

    return Detector(
        f"yunet:{os.path.basename(model)}:{os.path.getsize(model)}", _shrunk(_by_thread(make, find))
    )


def _by_thread(make, find):
    """`find(tool, image)` with a tool of each thread's own: opencv's detectors keep scratch memory and cannot be shared."""
    local = threading.local()

    def find_here(image):
        if not hasattr(local, "tool"):
            local.tool = make()
        return find(local.tool, image)

    return find_here


def _shrunk(find):
    """`find` on an image of at most LONGEST_SIDE, its answer in pixels of the image as it came."""

    def find_shrunk(image):
        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        if scale < 1.0:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return [Face(face.x / scale, face.y / scale, face.size / scale) for face in find(image)]

    return find_shrunk


def clip_box(images: Sequence[np.ndarray], detect: Detector, looks: int = LOOKS) -> Box | None:
    """The one box for the face of a clip, None if it shows no face steadily (see `steady_box`).

    Args:
      images: the clip's frames in order, uint8 RGB (h, w, 3); indexed only where they are looked at.
      looks: how many are, spread evenly from the first to the last; 1 is the first alone (a micro-expression's onset).
    """
    spread = np.unique(np.linspace(0, len(images) - 1, min(looks, len(images))).astype(int))
    return steady_box([detect(images[i]) for i in spread])


def steady_box(looks: Sequence[Sequence[Face]]) -> Box | None:
    """One square box from the faces seen in several frames of a clip, the same for the whole clip.

    Of several people the one whose face is largest and most often seen is taken. The box is the smallest square that holds
    that face in all those frames but for STRAY per cent of them on each side: as tight as a median for a head at rest, wide
    enough for a head that moves. None if less than PRESENCE of the frames show the face. The box may reach over the border.
    """
    follows = [_follow(face, looks) for faces in looks for face in faces]
    face = max(follows, key=lambda sightings: sum(f.size for f in sightings), default=[])
    if not face or len(face) < PRESENCE * len(looks):
        return None
    x, y, half = np.array([(f.x, f.y, f.size / 2) for f in face]).T
    left, top = np.percentile([x - half, y - half], STRAY, axis=1)
    right, bottom = np.percentile([x + half, y + half], 100 - STRAY, axis=1)
    size = max(right - left, bottom - top)
    return Box(round((left + right - size) / 2), round((top + bottom - size) / 2), round(size))


def _follow(face: Face, looks: Sequence[Sequence[Face]]) -> list[Face]:
    """The sightings of `face`: in each frame the one that overlaps it most, if it does so enough."""
    best = [max(faces, key=lambda f: _overlap(f, face)) for faces in looks if faces]
    return [f for f in best if _overlap(f, face) >= OVERLAP]


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two squares."""
    width, height = (
        max(0.0, min(p + a.size / 2, q + b.size / 2) - max(p - a.size / 2, q - b.size / 2))
        for p, q in ((a.x, b.x), (a.y, b.y))
    )
    return width * height / (a.size**2 + b.size**2 - width * height)
