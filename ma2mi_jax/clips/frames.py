"""Single frames by their number, whether they are image files, rows of an array or records.

Videos are decoded by `video.py`, from their start. To seek in one is slow, and wrong if its frame
rate varies; so a video becomes a folder of images before pairs of frames are read from it.
"""

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader

from ma2mi_jax.clips import tiff
from ma2mi_jax.files import opened, printable

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".jp2", ".ppm", ".pgm", ".pnm"),
)
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners, in files of 16 bits
JPEG_QUALITY = 95  # of all JPEG files that this package writes
# Bytes that a webcam may leave before the end of a JPEG file; more have lost their use.
PADDING = 16

MOST_PIXELS = 1 << 27  # of a frame: 11,585 x 11,585, 400 MB in memory
MOST_BYTES = 1 << 29  # of an image's file

# What decodes: an image that could not be read may be readable with another version, or by the
# rules of this file, whose number is raised when they change.
DECODER = f"simplejpeg {simplejpeg.__version__}, OpenCV {cv2.__version__}, rules 2"


class FrameError(Exception):
    """A frame or video that cannot be read; the message names the file and what is wrong."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class Unreachable(FrameError):
    """A file that could not be opened or read this time: the disk may be back tomorrow."""


@dataclasses.dataclass(frozen=True)
class Box:
    """A square region of a frame, in pixels of that frame; it may reach over the border.

    Attributes:
      left, top, size: the square before it is turned.
      angle: degrees by which it is turned about its centre, clockwise as one looks at the frame.
    """

    left: int
    top: int
    size: int
    angle: float = 0.0

    def __str__(self) -> str:
        # fingerprints of runs are made of this: no word on an angle where there is none
        turned = f", angle={self.angle}" if self.angle else ""
        return f"Box(left={self.left}, top={self.top}, size={self.size}{turned})"


# ----- where frames are --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Frames as image files: `names` in temporal order inside `folder`."""

    folder: str
    names: tuple[str, ...]

    def __post_init__(self):
        # a million clips share a few hundred file names: keep one copy of each
        object.__setattr__(self, "names", tuple(map(sys.intern, self.names)))

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class ArrayFrames:
    """Frames as rows of a memory-mapped `.npy` file.

    The file has shape (frames of all clips, h, w, 3), uint8 RGB; this clip has `count` rows, from
    row `first` on.
    """

    path: str
    first: int
    count: int

    def __len__(self) -> int:
        return self.count


@dataclasses.dataclass(frozen=True)
class StoreFrames:
    """Frames as records of an ArrayRecord file of JPEG images, which prepared data consist of.

    This clip has `count` records, from record `first` on. `latents` is a `.npy` file with a row for
    each record, or empty.
    """

    path: str
    first: int
    count: int
    latents: str = ""

    def __len__(self) -> int:
        return self.count


Frames = ImageFolder | ArrayFrames | StoreFrames


# ----- reading and writing -----------------------------------------------------------------------


def read_frame(frames: Frames, index: int) -> np.ndarray:
    """One frame as uint8 RGB of shape (h, w, 3).

    Values of 16 bits are scaled by the bits that all images of the folder fill, see `bits_of`.

    Raises:
      FrameError: the file is empty, damaged or no image, or it holds several.
      Unreachable: it is missing or cannot be read.
      IndexError: `index` lies outside `frames`.
    """
    if not 0 <= index < len(frames):
        raise IndexError(f"frame {index} of a clip of {len(frames)}")

    if isinstance(frames, ArrayFrames):
        return np.array(_mapped(frames.path)[frames.first + index])
    if isinstance(frames, StoreFrames):
        return _image(read_record(frames, index), f"{frames.path}: record {index}")
    image = _read(frames.folder, frames.names[index])
    return image if image.dtype == np.uint8 else eight_bits(image, _bits(frames))


def read_latents(frames: StoreFrames, index: int) -> np.ndarray:
    """The latents of one frame, float16 (h, w, 4), as `autoencoder.encode` returned them.

    Raises:
      FrameError: their file cannot be read, or they are not finite.
    """
    row = frames.first + index
    try:
        found = np.array(_mapped(frames.latents)[row])
    except (OSError, ValueError, IndexError) as error:
        raise FrameError(f"{frames.latents}: {error}") from None
    if not np.isfinite(found).all():
        raise FrameError(f"{frames.latents}: row {row} holds numbers that are not finite")
    return found


def read_record(frames: StoreFrames, index: int) -> bytes:
    """The JPEG file of one frame, as it was stored.

    Raises:
      FrameError: the file of records cannot be read there.
    """
    number = frames.first + index
    try:
        return _opened(frames.path).read([number])[0]
    except (RuntimeError, IndexError) as error:  # a damaged record does not match its checksum
        raise FrameError(f"{frames.path}: record {number} cannot be read ({error})") from None


def jpeg(image: np.ndarray) -> bytes:
    """The JPEG file, of JPEG_QUALITY, of an image uint8 RGB (h, w, 3).

    Raises:
      FrameError: the image is empty, or too large for JPEG.
    """
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    try:
        good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    except cv2.error:
        good = False
    if not good:
        raise FrameError(f"an image of shape {image.shape} cannot be written as JPEG")
    return data.tobytes()


def read_file(path: str) -> bytes:
    """The content of a file.

    Raises:
      FrameError: it is larger than any image.
      Unreachable: it cannot be read, or it is no regular file.
    """
    # not by OpenCV, which a name that is no text ends, and to which all failures are the same
    try:
        with opened(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise FrameError(f"{path}: has {size:,} bytes, at most {MOST_BYTES:,} are read")
            return file.read()
    except OSError as error:
        raise Unreachable(f"{path}: cannot be read: {error.strerror}") from None


def bits_of(frames: ImageFolder) -> int:
    """How many bits the values of a clip's images fill: 8 of most, else one of DEPTHS.

    Cameras of 10 or 12 bits write files of 16. So the greatest value of all images of the folder
    says what white is; one clip of the folder is then as bright as the next.

    Raises:
      FrameError: its first image cannot be read.
    """
    deep = _read(frames.folder, frames.names[0]).dtype == np.uint16
    return _bits(frames) if deep else 8


def _bits(frames: ImageFolder) -> int:
    return _bits_of_all(frames.folder, None if frames.folder else frames.names)


@functools.lru_cache(maxsize=1 << 12)
def _bits_of_all(folder: str, names: tuple[str, ...] | None) -> int:
    greatest = 0
    for name in os.listdir(folder) if names is None else names:
        if not name.rstrip().lower().endswith(IMAGE_SUFFIXES):
            continue
        try:
            image = _read(folder, name)
        except FrameError:
            continue
        if image.dtype == np.uint16:
            greatest = max(greatest, int(image.max()))
    return bits_for(greatest)


def bits_for(greatest: int) -> int:
    """The least of DEPTHS that holds this value; 16 bits of nothing but zeros are 16."""
    return next(bits for bits in DEPTHS if greatest < 1 << bits) if greatest else DEPTHS[-1]


def eight_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """An image of uint16 as uint8; its white is the greatest value of so many bits."""
    return (np.minimum(image, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def _read(folder: str, name: str) -> np.ndarray:
    path = os.path.join(folder, name)
    return _image(read_file(path), path)


def _image(file: bytes, what: str) -> np.ndarray:
    """The image in a file's content, uint8 or uint16 RGB (h, w, 3); `what` names the file in
    errors."""
    if file.startswith(b"\xff\xd8"):
        image = _whole_jpeg(file, what)
        if image is not None:
            return image
    try:
        if (pages := len(tiff.pages(file))) > 1:
            raise FrameError(f"{what}: holds {pages} pages: it is a clip by itself, no frame")
        data, depth = np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(data, depth)
    except (cv2.error, tiff.Damaged):  # an empty file, or the header claims an absurd size
        image = None
    if image is None:
        raise FrameError(f"{what}: not a readable image")
    if image.dtype not in (np.uint8, np.uint16):
        raise FrameError(f"{what}: its values are {image.dtype}; save it with 8 or 16 bits")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _whole_jpeg(file: bytes, what: str) -> np.ndarray | None:
    """The image in a JPEG file, None if OpenCV is to read it; OpenCV paints grey what is missing.

    Raises:
      FrameError: the file is damaged.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(file, strict=False)
        if height * width > MOST_PIXELS:
            raise FrameError(f"{what}: claims {width} x {height} pixels, too many for a frame")
        image = simplejpeg.decode_jpeg(file, "RGB", strict=True)
    except (ValueError, KeyError) as error:  # a KeyError for a header that is none
        padded = re.search(r"(\d+) extraneous bytes", str(error))
        if padded and int(padded[1]) <= PADDING:
            return None
        if any(word in str(error) for word in ("Corrupt", "Premature", "Inconsistent")):
            raise FrameError(f"{what}: a damaged image ({error})") from None
        return None  # a kind of JPEG that only OpenCV knows, or none at all
    return None if b"Exif\0\0" in file else image  # OpenCV turns what a camera says is turned


# Neither a memory map nor a reader can be sent to another process. So each process opens a file
# when it first needs it.


@functools.lru_cache(maxsize=256)
def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


@functools.lru_cache(maxsize=256)
def _opened(path: str) -> ArrayRecordReader:
    random_access = "readahead_buffer_size:0,max_parallelism:0"
    return ArrayRecordReader(path, random_access, file_reader_buffer_size=1 << 16)


# ----- order and crop ----------------------------------------------------------------------------


def frame_number(name: str) -> int | None:
    """The number of a frame: the last integer in its file name, None if there is none.

    `reg_img46.jpg` is frame 46, `006_05562.jpg` is frame 5562.
    """
    numbers = re.findall(r"[0-9]+", os.path.splitext(name)[0])
    return int(numbers[-1]) if numbers else None


def frame_numbers(names: Sequence[str]) -> list[int | None]:
    """The number of each frame of a clip: `frame_number`, if that tells its frames apart.

    If it does not, and another integer of the names does, alone, that is the number:
    `000012_0.jpg` and `000013_0.jpg` are frames 12 and 13.
    """
    last = [frame_number(name) for name in names]
    integers = [re.findall(r"[0-9]+", os.path.splitext(name)[0]) for name in names]
    counts = {len(found) for found in integers if found}
    if len(counts) != 1:
        return last
    columns = zip(*([int(n) for n in found] for found in integers if found), strict=True)
    telling = [at for at, column in enumerate(columns) if len(set(column)) == len(column)]
    if len(telling) != 1:
        return last
    return [int(found[telling[0]]) if found else None for found in integers]


def frame_order(name: str) -> tuple:
    """Sorting key that puts the image files of a folder in temporal order.

    It is the natural order of the whole name: each run of digits counts as a number, wherever it
    stands. So `frame2_0.jpg` comes before `frame10_0.jpg`, and `0.96.jpg` before `1.00.jpg`.
    Leading zeros and letter case do not matter. Names without a number come first.
    """
    parts = re.split(r"([0-9]+)", os.path.splitext(name)[0].lower())
    natural = [int(part) if i % 2 else part for i, part in enumerate(parts)]
    return (len(parts) > 1, natural, name)


def crop(image: np.ndarray, box: Box | None, size: int) -> np.ndarray:
    """The region `box` of an image, resized.

    Args:
      image: (h, w, 3) uint8.
      box: None takes the whole image. Where the box reaches over the border, the edge pixels are
        repeated. The result is upright where the box is turned.
      size: pixels along a side of the result.

    Returns:
      (size, size, 3) uint8.

    Raises:
      FrameError: `box` and `image` do not overlap at all.
    """
    if box is not None:
        height, width = image.shape[:2]
        right, bottom = box.left + box.size, box.top + box.size
        if right <= 0 or bottom <= 0 or box.left >= width or box.top >= height:
            raise FrameError(
                f"the face box {box} lies outside of the frame, which is {width}x{height}"
            )

        image = _turned(image, box) if box.angle else _upright(image, box)

    if image.shape[:2] == (size, size):
        return image
    shrinks = image.shape[0] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=method)


def _upright(image: np.ndarray, box: Box) -> np.ndarray:
    """The pixels in a box that is not turned."""
    height, width = image.shape[:2]
    right, bottom = box.left + box.size, box.top + box.size
    over = (max(0, -box.top), max(0, bottom - height), max(0, -box.left), max(0, right - width))
    image = image[max(0, box.top) : bottom, max(0, box.left) : right]
    return cv2.copyMakeBorder(image, *over, cv2.BORDER_REPLICATE) if any(over) else image


def _turned(image: np.ndarray, box: Box) -> np.ndarray:
    """The pixels in a box that is turned, (box.size, box.size, 3): at the scale of the frame."""
    middle = (box.size - 1) / 2
    x, y = box.left + middle, box.top + middle
    turn = cv2.getRotationMatrix2D((x, y), box.angle, 1.0)
    turn[:, 2] += middle - x, middle - y
    size = (box.size, box.size)
    return cv2.warpAffine(image, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
