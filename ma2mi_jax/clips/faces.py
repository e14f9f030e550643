"""Find the face of a clip, once: all its frames get the same crop, so that the motion of the face
survives.

A detector finds the faces in one image. `steady_box` makes one box from the faces found in several
frames of a clip. The boxes of detectors differ: those of Haar end just below the mouth, those of
YuNet at the chin. So each detector here turns its boxes into the same thing, the square that holds
the face from above the brows to below the chin.
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
# The least intersection over union of two sightings of one face. A head that moves by half its size
# still has 0.33.
OVERLAP = 0.25
# Per cent of the sightings that may reach over the box on each side: a detector errs now and then.
STRAY = 10
LONGEST_SIDE = 640  # larger images are shrunk before the search, which costs time by the pixel
SMALLEST_PART = 12  # faces smaller than this part of the image's shorter side are not searched for


@dataclasses.dataclass(frozen=True)
class Face:
    """A face seen in one image: the square from above the brows to below the chin, in pixels.

    Attributes:
      x, y: the centre of the square.
      size: its side.
    """

    x: float
    y: float
    size: float


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds the faces in an image, from any thread.

    Attributes:
      name: the detector and its model; what a cache keeps was found by the detector of that name.
      find: from an image, uint8 RGB (h, w, 3), to its faces.
    """

    name: str
    find: Callable[[np.ndarray], Sequence[Face]]

    def __call__(self, image: np.ndarray) -> Sequence[Face]:
        return self.find(image)


def detector(name: str = "haar", model: str | None = None) -> Detector:
    """The detector of that name.

    Args:
      name: `haar`, which comes with OpenCV, or `yunet`, which needs a model file.
      model: the model file of `yunet`, None for `haar`.

    Raises:
      UserError: the name is unknown, or `model` is not what this detector needs.
    """
    if model is not None and name != "yunet":
        raise UserError(
            "[detector_model={model}] is only for [detector=yunet]; give that too, or remove "
            "[detector_model]",
            model=model,
        )
    if name == "haar":
        return haar()
    if name != "yunet":
        raise UserError("[detector={name}]: not a detector; give haar or yunet", name=name)
    if model is None:
        raise UserError(
            "[detector=yunet]: needs its model file; give "
            "[detector_model=face_detection_yunet.onnx], or [detector=haar]"
        )
    return yunet(model)


def haar() -> Detector:
    """Frontal faces by OpenCV's boosted cascade `frontalface_alt2`.

    At five neighbours it has next to no false alarms. Its box reaches from the middle of the
    forehead to just under the mouth. In the videos it was tuned on (speakers, signers, a webcam)
    the chin is below the end of the box by 0.15 of its size, and by more when the jaw drops. So the
    square is 1.3 times as large, and its centre is lower by 0.08.

    Raises:
      UserError: OpenCV comes without cascades, as version 5 and that of some systems do.
    """
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = os.path.join(folder, "haarcascade_frontalface_alt2.xml")
    if not hasattr(cv2, "CascadeClassifier") or not os.path.isfile(path):
        raise UserError(
            "[detector=haar]: OpenCV {version} of this machine has no {what}; install "
            "opencv-python-headless below 5, or give [detector=yunet]",
            version=cv2.__version__,
            what=os.path.basename(path),
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


def yunet(model: str) -> Detector:
    """Faces by the YuNet network, whose box reaches from above the brows to the chin.

    Args:
      model: `face_detection_yunet_*.onnx` of the OpenCV zoo.

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
        boxes = [] if rows is None else rows[:, :4].tolist()
        return [
            Face(left + width / 2, top + height / 2, 1.2 * max(width, height))
            for left, top, width, height in boxes
        ]

    return Detector(
        f"yunet:{os.path.basename(model)}:{os.path.getsize(model)}", _shrunk(_by_thread(make, find))
    )


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
        return [Face(face.x / scale, face.y / scale, face.size / scale) for face in find(image)]

    return find_shrunk


def clip_box(images: Sequence[np.ndarray], detect: Detector, looks: int = LOOKS) -> Box | None:
    """The one box for the face of a clip, None if it shows no face steadily (see `steady_box`).

    Args:
      images: the clip's frames in order, uint8 RGB (h, w, 3). Only those that are searched are
        read.
      detect: the detector.
      looks: how many frames are searched, spread evenly from the first to the last. 1 means only
        the first, which is a micro-expression's onset.
    """
    spread = np.unique(np.linspace(0, len(images) - 1, min(looks, len(images))).astype(int))
    return steady_box([detect(images[i]) for i in spread])


def steady_box(looks: Sequence[Sequence[Face]]) -> Box | None:
    """One square box for the whole clip, from the faces seen in several of its frames.

    If there are several people, the one whose face is largest and most often seen counts. The box
    is the smallest square that holds this face in all these frames, except STRAY per cent of them
    on each side. So it is tight for a head at rest, and wide enough for a head that moves. It may
    reach over the border of the frame.

    Args:
      looks: the faces of each frame that was searched.

    Returns:
      The box, or None if less than PRESENCE of the frames show the face.
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
    """The sightings of `face`: in each frame the one that overlaps it most, if that is enough."""
    best = [max(faces, key=lambda f: _overlap(f, face)) for faces in looks if faces]
    return [f for f in best if _overlap(f, face) >= OVERLAP]


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two squares."""
    width, height = (
        max(0.0, min(p + a.size / 2, q + b.size / 2) - max(p - a.size / 2, q - b.size / 2))
        for p, q in ((a.x, b.x), (a.y, b.y))
    )
    return width * height / (a.size**2 + b.size**2 - width * height)
