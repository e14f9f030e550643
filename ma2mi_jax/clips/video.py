"""Videos, decoded once from their start.

Nothing here seeks: jumping to a frame of a video is slow, and on a file of variable frame rate it
gives the wrong frame.
"""

import re
from collections.abc import Iterator

import cv2
import numpy as np

from ma2mi_jax.clips.frames import FrameError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")

# Where a packet of encoded video gives the size of the picture, by the codec's four letters. For
# h264 it is the whole parameter set, in which the size has no fixed place.
_SIZE_IN_PACKET = {
    "mjpg": re.compile(rb"\xff[\xc0-\xc2]\x00\x11\x08(....)", re.DOTALL),
    "mpg1": re.compile(rb"\x00\x00\x01\xb3(...)", re.DOTALL),
    "mpg2": re.compile(rb"\x00\x00\x01\xb3(...)", re.DOTALL),
    "vp80": re.compile(rb"\x9d\x01\x2a(....)", re.DOTALL),
    "h264": re.compile(rb"\x00\x00\x01[\x27\x47\x67](.{8})", re.DOTALL),
}


def decode(path: str) -> Iterator[np.ndarray]:
    """All frames of a video file from its start, uint8 RGB of shape (h, w, 3).

    Raises:
      FrameError: the file does not decode at all, or its frame size changes midway.
    """
    _require_one_size(str(path))
    capture = cv2.VideoCapture(str(path))
    shape, count = None, 0

    try:
        while True:
            good, image = capture.read()
            if not good:
                break
            if shape is not None and image.shape != shape:
                before, after = (f"{w}x{h}" for h, w, _ in (shape, image.shape))
                raise FrameError(
                    f"{path}: the frame size changes from {before} to {after} at frame {count}"
                )
            shape, count = image.shape, count + 1
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()

    if not count:
        raise FrameError(f"{path}: no frame could be decoded")


def _require_one_size(path: str) -> None:
    """Raises FrameError if the encoded frames differ in size.

    OpenCV would scale all of them to the size of the first one, and so distort the faces.
    """
    # the packets as they lie in the file, without decoding them
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])

    try:
        letters = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
        codec = letters.decode("latin-1").lower()
        if codec not in _SIZE_IN_PACKET:
            return

        first, count = None, 0
        while True:
            good, packet = capture.read()
            if not good:
                return
            size = _SIZE_IN_PACKET[codec].search(packet.tobytes())
            first = first or (size and size[1])
            if size and size[1] != first:
                raise FrameError(f"{path}: the frame size changes at frame {count}")
            count += 1
    finally:
        capture.release()


def video_fps(path: str) -> float:
    """Frames per second as the video's header has it, 0 if the header does not say."""
    capture = cv2.VideoCapture(str(path))
    try:
        return float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
