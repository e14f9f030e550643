"""The pages of TIFF files, counted by hand-made tables of images."""

import struct

import cv2
import numpy as np
import pytest

from ma2mi_jax.clips import tiff


def table(kinds, order="<", big=False):
    """A TIFF file without pixels: an image for each kind (NewSubfileType)."""
    count, offset = ("Q", "Q") if big else ("H", "I")
    version = struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    file = (b"II" if order == "<" else b"MM") + version
    file += struct.pack(order + offset, len(file) + struct.calcsize(offset))
    for kind in kinds:
        value = struct.pack(f"{order}I", kind).ljust(struct.calcsize(offset), b"\0")
        file += struct.pack(order + count, 1)
        file += struct.pack(f"{order}HH{offset}", 254, 4, 1) + value
        file += struct.pack(order + offset, len(file) + struct.calcsize(offset))
    return file[: -struct.calcsize(offset)] + bytes(struct.calcsize(offset))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_thumbnails_and_masks_are_no_pages(order, big):
    assert tiff.pages(table([0, 1, 2, 4, 0], order, big)) == [0, 2, 4]
    assert tiff.pages(table([0], order, big)) == [0]


def test_a_table_that_lacks_its_end_is_damaged():
    with pytest.raises(tiff.Damaged):
        tiff.pages(table([0, 0])[:-3])


@pytest.mark.parametrize("content", [b"", b"II", b"MMxx", b"\x89PNG"])
def test_what_is_no_tiff_has_no_pages(content):
    assert tiff.pages(content) == []


def test_pages_are_read_in_their_order(tmp_path):
    written = [np.full((12, 16, 3), 10 * n, np.uint8) for n in range(5)]
    cv2.imwritemulti(str(tmp_path / "a.tif"), written)
    content = (tmp_path / "a.tif").read_bytes()
    found = list(tiff.read(content, [1, 3]))
    assert [int(image.mean()) for image in found] == [10, 30]
