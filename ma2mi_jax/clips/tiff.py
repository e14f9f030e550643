"""TIFF files of several pages: some cameras write a whole recording into one file.

OpenCV reads the pages, but takes the first of them for all there is unless it is asked.
"""

import mmap
import struct
from collections.abc import Iterator

import cv2
import numpy as np

SUFFIXES = (".tif", ".tiff")
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with which a file begins; + is BigTIFF
KIND, REDUCED_OR_MASK = 254, 0b101  # the tag NewSubfileType, and its bits of what is no page


class Damaged(Exception):
    """The file ends before the table of one of its images."""


def pages(file: bytes | mmap.mmap) -> list[int]:
    """The places of the pages among the images of a TIFF file, without thumbnails and masks.

    Empty for a file that is no TIFF.

    Raises:
      Damaged: a part of the file is missing.
    """
    return [place for place, is_page in enumerate(_images(file)) if is_page]


def read(file: bytes, places: list[int]) -> Iterator[np.ndarray | None]:
    """The images at these places as OpenCV has them, BGR of 8 or 16 bits; None for a damaged one.

    One of them is in memory at a time.
    """
    data = np.frombuffer(file, np.uint8)
    for place in places:
        try:
            good, images = cv2.imdecodemulti(
                data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, range=(place, place + 1)
            )
        except cv2.error:
            good, images = False, ()
        yield images[0] if good and len(images) == 1 else None


def _images(file: bytes | mmap.mmap) -> Iterator[bool]:
    """For each image of the file, in their order, whether it is a page."""
    if file[:4] not in MAGIC:
        return
    order, big = "<" if file[:2] == b"II" else ">", b"+" in file[:4]
    try:
        count, offset, size = ("Q", "Q", 20) if big else ("H", "I", 12)
        (at,), seen = struct.unpack_from(order + offset, file, 8 if big else 4), set()
        while at and at not in seen:
            seen.add(at)
            (entries,) = struct.unpack_from(order + count, file, at)
            first = at + struct.calcsize(count)
            kind = 0
            for entry in range(first, first + entries * size, size):
                (tag,) = struct.unpack_from(f"{order}H", file, entry)
                if tag == KIND:
                    (kind,) = struct.unpack_from(f"{order}I", file, entry + size // 2 + 2)
            (at,) = struct.unpack_from(order + offset, file, first + entries * size)
            yield not kind & REDUCED_OR_MASK
    except struct.error:
        raise Damaged from None
