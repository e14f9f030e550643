"""Videos, decoded once from their start.

FFmpeg (through PyAV) says of every frame how large it is and when it is shown. Nothing here
seeks: jumping to a frame of a video is slow, and on a file of variable frame rate it gives the
wrong frame.
"""

import collections
import dataclasses
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from ma2mi_jax.clips import tiff
from ma2mi_jax.clips.frames import DECODER as IMAGES
from ma2mi_jax.clips.frames import MOST_PIXELS, FrameError, Unreachable, bits_for, eight_bits
from ma2mi_jax.files import opened

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".m4v", ".wmv", ".asf", ".flv"),
    *(".f4v", ".mts", ".m2ts", ".m2t", ".ts", ".tod", ".mod", ".3gp", ".3g2", ".ogv", ".ogm"),
    *(".vob", ".m2v", ".mp2v", ".m1v", ".mpe", ".mpv", ".qt", ".divx", ".dv", ".mxf", ".mjpeg"),
    *(".mjpg", ".mj2", ".rm", ".rmvb", ".nut", ".y4m", ".h264", ".264", ".h265", ".hevc", ".gif"),
    *(".apng", ".insv", ".dav"),
)

# What decodes: something that could not be read may be readable with the next version.
DECODER = f"PyAV {av.__version__}, libavcodec {av.library_versions['libavcodec']}; {IMAGES}"

WIDEST_PIXEL = 4  # a pixel of another shape than 1:4 ... 4:1 is a wrong entry in the file
PAUSE = 10  # a gap of so many usual gaps between two frames is a pause of the recording
MOST = 0.9  # of the gaps between frames: the others may be frames that were lost
SLACK = 1.5  # frames by which the length of a whole video may be wrong in its header


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
      image: (h, w, 3) uint8 RGB, upright and with square pixels.
      time: when it is shown, in seconds; None if the file does not say.
    """

    image: np.ndarray
    time: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What is known about a video when its end has been reached.

    Attributes:
      frames: the number of frames that were given.
      announced: how many the file should hold.
      fps: frames per second, see `rate`.
      bits: what the values of a TIFF file fill, see `frames.bits_of`.
    """

    frames: int
    announced: int
    fps: float
    bits: int = 8


def decode(path: str, tell: Callable[[Report], None] | None = None) -> Iterator[Frame]:
    """The frames of a video file from its first whole one until its end, or until its first damage;
    or the pages of a TIFF file, whose times nobody knows.

    What follows a damage is counted, not given: frames that are built on it look like pictures, and
    the time between two of them is not known.

    Args:
      path: the file; its name may be any that the system allows.
      tell: called with the report after the last frame.

    Raises:
      FrameError: nothing can be decoded, the frame size changes, the pixels have an absurd shape,
        or a page cannot be read.
      Unreachable: the file cannot be opened or read.
    """
    try:
        # FFmpeg would take a name such as `s01:ep02.mp4` for an address: so it gets the open file
        with opened(path) as file:
            read = _pages if file.read(4) in tiff.MAGIC else _decode
            file.seek(0)
            yield from read(file, str(path), tell)
    except av.FFmpegError:
        raise FrameError(f"{path}: no frame could be decoded") from None
    except OSError as error:
        raise Unreachable(f"{path}: cannot be read: {error.strerror}") from None


def _decode(file: BinaryIO, path: str, tell: Callable[[Report], None] | None) -> Iterator[Frame]:
    with av.open(file) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise FrameError(f"{path}: no frame could be decoded")
        stream.codec_context.thread_count = 1  # videos are decoded side by side, one a thread
        # do not paint over what is missing, and take no memory for what only a header claims
        options = {"err_detect": "explode", "max_pixels": str(MOST_PIXELS)}
        stream.codec_context.options = options
        shape, ticks, ends = None, [], collections.Counter()
        count, whole = 0, True

        # ----- frames -----
        for packet in _packets(container):
            if packet is None:
                count, whole = count + 1, not ticks
                continue
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream_index] = max(ends[packet.stream_index], end)
            for picture in _pictures(packet) if packet.stream_index == stream.index else ():
                count += 1
                if picture is None:
                    whole = not ticks
                if picture is None or not whole:
                    continue
                image = _upright(picture, _square(path, picture, stream.sample_aspect_ratio))
                _check_shape(path, shape, image.shape, len(ticks))
                shape = image.shape
                ticks.append(picture.pts)
                yield Frame(image, picture.time)

        # ----- what is missing -----
        if not ticks:
            raise FrameError(f"{path}: no frame could be decoded")
        if tell is not None:
            times = [t for t in ticks if t is not None]
            fps = rate(times, stream.time_base, stream.average_rate)
            announced = max(count, _announced(container, stream, ends, fps))
            tell(Report(len(ticks), announced, fps))


def has_pages(path: str) -> bool:
    """Whether a file is a TIFF file of several pages, which `decode` reads. A damaged one is not
    asked further: as an image it is refused with its reason."""
    if not path.rstrip().lower().endswith(tiff.SUFFIXES):
        return False
    try:
        with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all:
            return len(tiff.pages(all)) > 1
    except (tiff.Damaged, OSError, ValueError):  # an empty file cannot be mapped
        return False


def _pages(file: BinaryIO, path: str, tell: Callable[[Report], None] | None) -> Iterator[Frame]:
    content = file.read()
    try:
        places = tiff.pages(content)
    except tiff.Damaged:
        raise FrameError(f"{path}: a part of the file is missing") from None
    greatest, shape = 0, None
    for number, image in enumerate(tiff.read(content, places)):
        if image is None:
            raise FrameError(f"{path}: page {number + 1} of {len(places)} cannot be read")
        if image.dtype not in (np.uint8, np.uint16):
            raise FrameError(f"{path}: its values are {image.dtype}; save it with 8 or 16 bits")
        _check_shape(path, shape, image.shape, number)
        shape = image.shape
        greatest = max(greatest, int(image.max()) if image.dtype == np.uint16 else 0)
    bits = bits_for(greatest) if greatest else 8
    for image in tiff.read(content, places):
        image = image if image.dtype == np.uint8 else eight_bits(image, bits)
        yield Frame(np.ascontiguousarray(image[:, :, ::-1]), None)
    if tell is not None:
        tell(Report(len(places), len(places), 0.0, bits))


def _check_shape(path: str, shape: tuple | None, found: tuple, number: int) -> None:
    """Raises FrameError if frame `number` has another shape than those before it."""
    if shape is not None and found != shape:
        before, after = (f"{w}x{h}" for h, w, _ in (shape, found))
        raise FrameError(
            f"{path}: the frame size changes from {before} to {after} at frame {number}"
        )


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet | None]:
    """The packets of all streams; None at the end if the file breaks off inside one."""
    try:
        yield from container.demux()
    except av.FFmpegError:
        yield None


def _pictures(packet: av.Packet) -> list[av.VideoFrame | None]:
    """What can be decoded with this packet; None stands for each frame that is not whole."""
    if packet.is_corrupt:
        return [None]
    try:
        found = packet.decode()
    except av.FFmpegError:
        return [None]
    return [None if picture.is_corrupt else picture for picture in found]


def _square(path: str, picture: av.VideoFrame, ratio: Fraction | None) -> tuple[int, int]:
    """Width and height of the picture with square pixels; `ratio` is width : height of its own."""
    ratio = ratio or Fraction(1)
    if not 1 <= max(ratio, 1 / ratio) <= WIDEST_PIXEL:
        raise FrameError(f"{path}: its pixels are {ratio.numerator}:{ratio.denominator} wide")
    return round(picture.width * max(ratio, 1)), round(picture.height * max(1 / ratio, 1))


def _upright(picture: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 RGB, scaled to (width, height) and then turned as the file asks for."""
    image = picture.to_ndarray(format="rgb24", width=size[0], height=size[1])
    turns = round(picture.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def rate(ticks: Sequence[int], tick: Fraction, header: Fraction | None) -> float:
    """Frames per second of frames that are shown at these times, 0 if nobody knows.

    It is their mean rate without pauses of the recording. Ticks are often milliseconds; so where
    the gaps between the frames are the header's to a tick, the header is more exact.

    Args:
      ticks: the times of the frames in their order, in units of `tick`.
      tick: in seconds.
      header: frames per second as the file's header has it, None if it does not say.
    """
    gaps = np.diff(np.asarray(ticks, np.int64))
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return float(header or 0)
    if header and np.mean(np.abs(gaps - float(1 / header / tick)) <= 1) >= MOST:
        return float(header)
    gaps = gaps[gaps <= PAUSE * np.median(gaps)]
    return float(len(gaps) / (int(gaps.sum()) * tick))


def _announced(
    container: av.container.InputContainer,
    stream: av.video.VideoStream,
    ends: Mapping[int, float],
    fps: float,
) -> int:
    """How many frames the file should hold by the length in its header; 0 if it says nothing, or
    if it is as long as it says.

    Args:
      ends: by the index of a stream, where its last packet ends, in seconds.
      fps: frames per second.
    """
    kind, start, end = container.format.name, 0, ends[stream.index]
    if kind == "avi" and stream.average_rate:  # FFmpeg takes its length from the size of the file
        length = stream.frames / stream.average_rate
    elif "mp4" in kind and stream.duration:  # the length after the cuts of an edit list
        start = (stream.start_time or 0) * stream.time_base
        length = start + stream.duration * stream.time_base
    elif kind in ("matroska,webm", "flv") and container.duration:
        length = container.duration / av.time_base  # of the longest stream
        end = max(ends.values())
    else:
        return 0
    cut_off = fps and length - end > SLACK / fps
    return round(float(length - start) * fps) if cut_off else 0
