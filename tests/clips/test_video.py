"""Videos as cameras, phones, browsers and broken downloads leave them."""

import os
import pathlib
from fractions import Fraction

import cv2
import drawn
import numpy as np
import pytest

from ma2mi_jax.clips import video
from ma2mi_jax.clips.frames import FrameError, Unreachable

WIDE, TALL = (96, 128), (128, 96)  # height, width


def moving(count, shape=WIDE):
    """A face, a dot that tells the frames apart, and noise: so packets are not empty."""
    noise = np.random.default_rng(0).integers(0, 30, (count, *shape, 3), np.uint8)
    for i in range(count):
        noise[i] += drawn.face(shape[1] // 2, shape[0] // 2, 60, shape=shape) // 2
        noise[i, :8, 4 * (i % 20) : 4 * (i % 20) + 8] = 255
    return list(noise)


def decoded(path):
    """The frames of a video, and its report."""
    told = []
    found = list(video.decode(str(path), told.append))
    return found, told[0]


def cut(path, part):
    """The file without its end."""
    content = path.read_bytes()
    shorter = path.with_name(f"cut-{path.name}")
    shorter.write_bytes(content[: round(part * len(content))])
    return shorter


def with_hole(path, place=0.5, part=0.1):
    """The file with zeros in its midst."""
    content = bytearray(path.read_bytes())
    size = round(part * len(content))
    first = round(place * len(content))
    content[first : first + size] = bytes(size)
    holed = path.with_name(f"hole-{path.name}")
    holed.write_bytes(content)
    return holed


def joined(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


CODECS = {
    "a.mp4": "h264",
    "a.mov": "mpeg4",
    "a.mkv": "h264",
    "a.webm": "libvpx",
    "b.webm": "libvpx-vp9",
    "a.avi": "mjpeg",
    "b.avi": "mpeg4",
    "a.mpg": "mpeg2video",
    "a.m4v": "mpeg4",
    "a.wmv": "wmv2",
}

# ----- what is whole ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_a_whole_video_gives_all_its_frames_in_order_and_no_word(tmp_path, name):
    path = drawn.film(tmp_path / name, moving(30), CODECS[name])
    found, report = decoded(path)
    assert report == video.Report(30, 30, 25.0)
    assert {frame.image.shape for frame in found} == {(*WIDE, 3)}
    for i, frame in enumerate(found):
        assert frame.image[:8, 4 * (i % 20) : 4 * (i % 20) + 8].mean() > 180
    assert np.allclose(np.diff([frame.time for frame in found]), 0.04, atol=0.002)


def test_hidden_packets_of_vp8_are_no_lost_frames(tmp_path):
    _, report = decoded(drawn.film(tmp_path / "a.webm", moving(40), "libvpx"))
    assert report.frames == report.announced == 40


def test_pictures_are_those_that_opencv_sees(tmp_path):
    path = drawn.film(tmp_path / "a.mp4", moving(5))
    capture = cv2.VideoCapture(str(path))
    for frame in video.decode(str(path)):
        assert np.array_equal(frame.image, capture.read()[1][..., ::-1])


def test_any_name_is_opened(tmp_path):
    whole = drawn.film(tmp_path / "whole.avi", moving(4), "mjpeg").read_bytes()
    for name in (b"\xd6\xd0.avi", b"s01:ep02.avi", b" a,b%d .avi", "雾.avi".encode()):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            file.write(whole)
        assert len(list(video.decode(os.fsdecode(path)))) == 4


def test_a_relative_name_with_a_colon_is_no_address(tmp_path, monkeypatch):
    drawn.film(tmp_path / "a.mp4", moving(4)).rename(tmp_path / "s01:ep02.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(video.decode("s01:ep02.mp4"))) == 4


# ----- what is damaged ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mov", {"movflags": "faststart"}),
        ("a.mkv", {}),
        ("a.webm", {}),
        ("a.avi", {}),
        ("b.avi", {}),
    ],
)
def test_a_video_that_is_cut_off_says_so(tmp_path, name, options):
    path = drawn.film(tmp_path / name, moving(40), CODECS[name], **options)
    whole, _ = decoded(path)
    found, report = decoded(cut(path, 0.6))
    assert report.announced == 40
    assert 1 <= report.frames == len(found) < 32
    at = {frame.time: frame.image for frame in whole}
    for frame in found:  # no frame is half a picture
        assert np.array_equal(at[frame.time], frame.image)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "b.avi", "a.mpg"])
def test_a_hole_ends_a_video_and_is_told(tmp_path, name):
    path = drawn.film(tmp_path / name, moving(40), CODECS[name])
    whole, _ = decoded(path)
    found, report = decoded(with_hole(path))
    assert report.frames == len(found) < report.announced
    for before, after in zip(whole, found, strict=False):
        assert np.array_equal(before.image, after.image)


def test_a_recording_that_begins_between_two_key_frames_gives_the_rest(tmp_path):
    path = drawn.film(tmp_path / "a.mpg", moving(40), "mpeg2video")
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 3 // 2048 * 2048 :])  # whole packs of MPEG
    found, report = decoded(path)
    assert 10 < len(found) == report.frames <= 30


def test_what_is_no_video(tmp_path):
    contents = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(4000),
        "no index": cut(drawn.film(tmp_path / "a.mp4", moving(9)), 0.5).read_bytes(),
        "image": drawn.jpeg(moving(1)[0])[:50],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FrameError, match="no frame could be decoded"):
            list(video.decode(str(tmp_path / name)))


def test_a_file_that_is_not_there_may_be_there_tomorrow(tmp_path):
    with pytest.raises(Unreachable, match="No such file"):
        next(video.decode(str(tmp_path / "absent.mp4")))


# ----- the size of a frame ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "form"),
    [("mpeg4", "m4v"), ("h264", "h264"), ("mjpeg", "mjpeg"), ("mpeg2video", "mpeg2video")],
)
def test_a_change_of_size_is_seen_in_every_codec(tmp_path, codec, form):
    wide = drawn.film(tmp_path / "wide", moving(10), codec, form=form)
    tall = drawn.film(tmp_path / "tall", moving(10, TALL), codec, form=form)
    path = joined(tmp_path / "both.mpg", wide, tall)
    # MPEG-2 shows a frame when the next one has come, and forgets it where the size changes
    with pytest.raises(FrameError, match=r"changes from 128x96 to 96x128 at frame (9|10)"):
        list(video.decode(str(path)))
    assert len(list(video.decode(str(joined(path, wide, wide))))) >= 19


def test_bytes_that_look_like_a_size_are_none(tmp_path):
    """Parameters that are written anew, another level or profile: the frames keep their size."""
    for i, fps in enumerate((25, 50)):
        drawn.film(tmp_path / f"{i}.h264", moving(10), fps=fps)
    path = joined(tmp_path / "a.h264", tmp_path / "0.h264", tmp_path / "1.h264")
    assert len(list(video.decode(str(path)))) == 20


# ----- rate and shape -----------------------------------------------------------------------------


def test_the_rate_is_that_of_the_frames_not_that_of_the_header(tmp_path):
    times = np.cumsum([0, *([33, 32, 34, 33, 35] * 8)]).tolist()
    path = drawn.film(tmp_path / "browser.webm", moving(41), "libvpx", fps=1000, times=times)
    found, report = decoded(path)
    assert report.fps == pytest.approx(1000 * 40 / times[-1], abs=1e-6)
    assert found[-1].time == pytest.approx(times[-1] / 1000)
    assert report.announced == 41


def test_milliseconds_do_not_blur_a_rate(tmp_path):
    times = [round(1000 * i / 30) for i in range(31)]
    path = drawn.film(tmp_path / "a.mkv", moving(31), fps=30, times=times)
    assert decoded(path)[1].fps == 30.0


def test_rates_by_hand():
    ms = Fraction(1, 1000)
    assert video.rate([0, 40, 80, 120], ms, None) == 25
    assert video.rate([0, 40, 80, 120], ms, Fraction(1000)) == 25
    assert video.rate([0, 33, 67, 100, 133], ms, Fraction(30)) == 30
    assert video.rate([0, 100, 150, 200], ms, Fraction(30)) == 15, "the mean of slow and fast"
    assert video.rate([0, 40, 80, 5000, 5040], ms, None) == 25, "a pause is no slow frame"
    assert video.rate([0, 40, 80, 0, 40, 80], ms, None) == 25, "two parts, one after the other"
    assert video.rate([], ms, Fraction(24)) == 24
    assert video.rate([7], ms, None) == 0


@pytest.mark.parametrize(
    ("ratio", "shape"), [((64, 45), (96, 182)), ((1, 2), (192, 128)), ((1, 1), WIDE)]
)
def test_pixels_become_square(tmp_path, ratio, shape):
    path = drawn.film(tmp_path / "a.mp4", moving(3), pixels=Fraction(*ratio))
    assert {frame.image.shape[:2] for frame in video.decode(str(path))} == {shape}


def test_absurd_pixels_are_refused(tmp_path):
    path = drawn.film(tmp_path / "a.mp4", moving(3), pixels=Fraction(8, 1))
    with pytest.raises(FrameError, match="its pixels are 8:1 wide"):
        list(video.decode(str(path)))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_phone_held_upright_films_upright(tmp_path, degrees):
    path = drawn.film(tmp_path / "a.mp4", moving(3), turned=degrees)
    seen = cv2.VideoCapture(str(path)).read()[1]
    image = next(video.decode(str(path))).image
    assert image.shape[:2] == (WIDE if degrees == 180 else TALL)
    assert np.array_equal(image, seen[..., ::-1])


@pytest.mark.skipif(
    not (pathlib.Path(__file__).parents[3] / "shared" / "faces").is_dir(),
    reason="the real videos are not there",
)
def test_real_videos_are_whole():
    faces = pathlib.Path(__file__).parents[3] / "shared" / "faces"
    for name, count, fps in (("grid_bbaf2n.mpg", 75, 25), ("intel_asl_eat.mkv", 47, 30)):
        assert decoded(faces / name)[1] == video.Report(count, count, fps)
