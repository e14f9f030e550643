"""Single images: what is damaged says so, what is only unusual is read."""

import os

import cv2
import drawn
import numpy as np
import pytest

from ma2mi_jax.clips import frames
from ma2mi_jax.clips.frames import Box, FrameError, ImageFolder, Unreachable, read_frame

GRAIN = np.random.default_rng(0).integers(0, 40, (120, 160, 3), np.uint8)
FACE = drawn.face(80, 60, 80, shape=(120, 160)) // 2 + GRAIN
BGR = FACE[..., ::-1]
END = b"\xff\xd9"  # of a JPEG file


def encoded(suffix=".jpg", *options):
    return cv2.imencode(suffix, BGR, options)[1].tobytes()


def read(folder, content, name="img1.jpg"):
    """What is read of a file with this content."""
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(content)
    return read_frame(ImageFolder(str(folder), (name,)), 0)


def holed(content, part=0.05):
    """The file without some bytes in its midst."""
    middle = len(content) // 2
    return content[:middle] + content[middle + round(part * len(content)) :]


# ----- what is damaged ----------------------------------------------------------------------------

JPEG, PROGRESSIVE = encoded(), encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


@pytest.mark.parametrize(
    "content",
    [
        JPEG[: len(JPEG) * 6 // 10],
        JPEG[: len(JPEG) * 97 // 100],
        JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
        JPEG[: len(JPEG) // 2] + END,
        holed(JPEG),
        PROGRESSIVE[: len(PROGRESSIVE) * 8 // 10],
        holed(PROGRESSIVE),
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2)[:2000],
    ],
)
def test_a_damaged_jpeg_is_no_image(tmp_path, content):
    with pytest.raises(FrameError, match=r"img1.jpg: a damaged image \("):
        read(tmp_path, content)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_images_of_other_kinds_that_are_cut_off_are_none(tmp_path, suffix):
    whole = encoded(suffix)
    assert np.abs(read(tmp_path, whole).astype(int) - FACE).mean() < 12
    for part in (0.6, 0.97):
        with pytest.raises(FrameError, match="not a readable image"):
            read(tmp_path, whole[: round(part * len(whole))])


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xe0garbage"])
def test_what_is_no_image(tmp_path, content):
    with pytest.raises(FrameError, match="not a readable image"):
        read(tmp_path, content)


def test_an_image_that_cannot_be_opened_may_be_there_tomorrow(tmp_path):
    with pytest.raises(Unreachable, match="No such file"):
        read_frame(ImageFolder(str(tmp_path), ("absent.jpg",)), 0)


# ----- what is only unusual -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        JPEG,
        PROGRESSIVE,
        JPEG + bytes(5000),
        JPEG + b"behind the end" + END,
        JPEG[:-2] + b"\0\0" + END,
        encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encoded(".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
        encoded(".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    ],
)
def test_a_whole_jpeg_is_read_as_opencv_reads_it(tmp_path, content):
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(read(tmp_path, content), expected[..., ::-1])


def test_a_grey_jpeg_has_three_channels(tmp_path):
    grey = cv2.imencode(".jpg", FACE[..., 0])[1].tobytes()
    image = read(tmp_path, grey)
    assert image.shape == FACE.shape
    assert (image[..., 0] == image[..., 2]).all()


def test_a_turned_camera_is_turned_back(tmp_path):
    # one EXIF entry: orientation (0x0112), a short, 6: turn it by 90 degrees
    entry = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    turned = JPEG[:2] + segment + JPEG[2:]
    expected = np.rot90(read(tmp_path, JPEG), -1)
    assert np.array_equal(read(tmp_path, turned), expected)
    with pytest.raises(FrameError, match="a damaged image"):
        read(tmp_path, turned[:-300])


@pytest.mark.parametrize("name", [b"\xd6\xd0.jpg", b"a,b:c%d .jpg", "表情".encode() + b".jpg"])
def test_any_name_is_read(tmp_path, name):
    assert read(tmp_path, JPEG, os.fsdecode(name)).shape == FACE.shape


def test_our_own_jpeg_is_read(tmp_path):
    assert np.abs(read(tmp_path, frames.jpeg(FACE)).astype(int) - FACE).mean() < 12


def test_a_turned_box_takes_what_it_surrounds_upright():
    """A bar that falls by 30 degrees to the right is level in the crop, and in its middle."""
    image = np.zeros((200, 300, 3), np.uint8)
    slope = np.tan(np.deg2rad(30))
    y, x = np.mgrid[:200, :300]
    image[np.abs((y - 99.5) - slope * (x - 149.5)) < 4] = 255
    crop = frames.crop(image, Box(100, 50, 100, 30.0), 100)
    rows = crop[..., 0].mean(1)
    assert rows[48:52].min() > 240
    assert rows[:40].max() < 1
    assert rows[60:].max() < 1


def test_a_box_that_is_turned_by_nothing_is_the_box():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for left in (-20, 10, 40):
        nearly = frames.crop(image, Box(left, -10, 51, 1e-9), 51)
        np.testing.assert_array_equal(nearly, frames.crop(image, Box(left, -10, 51), 51))


def test_a_box_says_its_angle_if_it_has_one():
    """Fingerprints of runs are made of this text: those of older runs stay what they are."""
    assert f"{Box(1, 2, 3)}" == "Box(left=1, top=2, size=3)"
    assert f"{Box(1, 2, 3, 4.5)}" == "Box(left=1, top=2, size=3, angle=4.5)"
