"""Exact access to single frames, whatever holds them.

Random access by seeking in a video is slow, and wrong on files of variable frame rate. So nothing here seeks: videos are decoded
once from the start (`decode`), and pairs are read from folders of images or from arrays (`read_frame`).
"""

import contextlib
import dataclasses
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

JPEG_QUALITY = 95  # of the JPEG files that are written here
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv")
# where a packet of encoded video tells the picture's size, by the codec's four letters
_SIZE_IN_PACKET = {
    "mjpg": re.compile(rb"\xff[\xc0-\xc2]\x00\x11\x08(....)", re.DOTALL),
    "mpg1": re.compile(rb"\x00\x00\x01\xb3(...)", re.DOTALL),
    "mpg2": re.compile(rb"\x00\x00\x01\xb3(...)", re.DOTALL),
    "vp80": re.compile(rb"\x9d\x01\x2a(....)", re.DOTALL),
    "h264": re.compile(
        rb"\x00\x00\x01[\x27\x47\x67](.{8})", re.DOTALL
    ),  # the parameter set, in which the size has no fixed place
}


class FrameError(Exception):
    """A frame or video that cannot be read; the message names the file and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Box:
    """A square region of a frame, in pixels of that frame; it may reach over the border."""

    left: int
    top: int
    size: int


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Frames as image files: `names` in temporal order inside `folder`."""

    folder: str
    names: tuple[str, ...]

    def __post_init__(
        self,
    ):  # a million clips share a few hundred file names: keep one copy of each
        object.__setattr__(self, "names", tuple(map(sys.intern, self.names)))

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class ArrayFrames:
    """Frames as rows of a memory-mapped `.npy` file of shape (frames of all clips, h, w, 3), uint8 RGB."""

    path: str
    first: int
    count: int

    def __len__(self) -> int:
        return self.count


@dataclasses.dataclass(frozen=True)
class StoreFrames:
    """Frames as records of an ArrayRecord file of JPEG images, as `store.py` writes; `latents`: a `.npy` file with a row a record."""

    path: str
    first: int
    count: int
    latents: str = ""

    def __len__(self) -> int:
        return self.count


Frames = ImageFolder | ArrayFrames | StoreFrames


def read_frame(frames: Frames, index: int) -> np.ndarray:
    """One frame as uint8 RGB of shape (h, w, 3).

    Raises:
      FrameError: the file is missing, empty or no image.
      IndexError: `index` lies outside `frames`.
    """
    if not 0 <= index < len(frames):
        raise IndexError(f"frame {index} of a clip of {len(frames)}")
    if isinstance(frames, ArrayFrames):
        return np.array(_mapped(frames.path)[frames.first + index])
    if isinstance(frames, StoreFrames):
        return _rgb(
            cv2.imdecode,
            np.frombuffer(read_record(frames, index), np.uint8),
            f"{frames.path}: record {index}",
        )
    path = os.path.join(frames.folder, frames.names[index])
    return _rgb(cv2.imread, path, path)


def read_latents(frames: StoreFrames, index: int) -> np.ndarray:
    """The latents of one frame, float16 (h, w, 4), as `autoencoder.encode` gave them.

    Raises:
      FrameError: their file cannot be read.
    """
    try:
        return np.array(_mapped(frames.latents)[frames.first + index])
    except (OSError, ValueError) as error:
        raise FrameError(f"{frames.latents}: {error}") from None


def read_record(frames: StoreFrames, index: int) -> bytes:
    """The JPEG file of one frame, as it was stored.

    Raises:
      FrameError: the container cannot be read there.
    """
    try:
        return _opened(frames.path).read([frames.first + index])[0]
    except (
        RuntimeError,
        IndexError,
    ) as error:  # every record has its own checksum, so what is damaged says so
        raise FrameError(
            f"{frames.path}: record {frames.first + index} cannot be read ({error})"
        ) from None


def _rgb(read: Callable, source: Any, what: str) -> np.ndarray:
    try:
        image = read(source, cv2.IMREAD_COLOR)
    except cv2.error:  # a header that claims an absurd size
        image = None
    if image is None:
        raise FrameError(f"{what}: not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg(image: np.ndarray) -> bytes:
    """The JPEG file, of JPEG_QUALITY, of an image uint8 RGB (h, w, 3).

    Raises:
      FrameError: the image is too large for JPEG, or empty.
    """
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    try:
        good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    except cv2.error:
        good = False
    if not good:
        raise FrameError(f"an image of shape {image.shape} cannot be written as JPEG")
    return data.tobytes()


@functools.lru_cache(
    maxsize=256
)  # opened when first used, in whatever process that is: neither map nor reader can be sent to another
def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


@functools.lru_cache(maxsize=256)
def _opened(path: str):
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(
        path, "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=1 << 16
    )  # random access


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
    """Raises FrameError if the encoded frames differ in size: opencv scales all to the first one's, and so distorts the faces."""
    capture = cv2.VideoCapture(
        path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1]
    )  # the packets as they lie in the file: costs no decoding
    try:
        codec = (
            int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1").lower()
        )
        if codec not in _SIZE_IN_PACKET:
            return
        first, count = None, 0
        while True:
            good, packet = capture.read()
            if not good:
                return
            told = _SIZE_IN_PACKET[codec].search(packet.tobytes())
            first = first or (told and told[1])
            if told and told[1] != first:
                raise FrameError(f"{path}: the frame size changes at frame {count}")
            count += 1
    finally:
        capture.release()


def video_fps(path: str) -> float:
    """Frames per second as the video's header has it, 0 where it says nothing."""
    capture = cv2.VideoCapture(str(path))
    try:
        return float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()


def frame_number(name: str) -> int | None:
    """The number of a frame by its file name: the last integer in it (`reg_img46.jpg` → 46, `006_05562.jpg` → 5562), None without one."""
    numbers = re.findall(r"[0-9]+", os.path.splitext(name)[0])
    return int(numbers[-1]) if numbers else None


def frame_order(name: str) -> tuple[int, str]:
    """Sorting key that puts the image files of a folder in temporal order, whatever the zero padding; names without a number come first."""
    number = frame_number(name)
    return (-1 if number is None else number, name)


def crop(image: np.ndarray, box: Box | None, size: int) -> np.ndarray:
    """The region `box` of `image` (all of it where None), resized to (size, size, 3); edge pixels are repeated over the border.

    Raises:
      FrameError: `box` lies outside of `image` altogether.
    """
    if box is not None:
        height, width = image.shape[:2]
        right, bottom = box.left + box.size, box.top + box.size
        if right <= 0 or bottom <= 0 or box.left >= width or box.top >= height:
            raise FrameError(
                f"the face box {box} lies outside of the frame, which is {width}x{height}"
            )
        over = (max(0, -box.top), max(0, bottom - height), max(0, -box.left), max(0, right - width))
        image = image[max(0, box.top) : bottom, max(0, box.left) : right]
        if any(over):
            image = cv2.copyMakeBorder(image, *over, cv2.BORDER_REPLICATE)
    if image.shape[:2] == (size, size):
        return image
    shrinks = image.shape[0] > size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


@contextlib.contextmanager
def threads(
    workers: int | None = None, stop: threading.Event | None = None
) -> Iterator[ThreadPoolExecutor]:
    """A pool, of a thread for each core by default, in which opencv, being called from all threads, uses one thread a call.

    At the end, or on an error, `stop` is set and what has not begun is dropped.
    """
    before = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_ERROR
    )  # what cannot be read is reported by us, once
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        yield pool
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before[0])
        cv2.utils.logging.setLogLevel(before[1])
