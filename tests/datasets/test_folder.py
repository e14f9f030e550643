import itertools
import json
import os
import pathlib
import random

import cv2
import drawn
import numpy as np
import pytest

from ma2mi_jax import files
from ma2mi_jax.clips import faces, frames, shots, video
from ma2mi_jax.clips.faces import Detector, Face
from ma2mi_jax.clips.frames import Box
from ma2mi_jax.datasets import folder
from ma2mi_jax.datasets.common import disk, extract, listing
from ma2mi_jax.errors import UserError

FACES = pathlib.Path(__file__).parents[3] / "shared" / "faces"
PATTERN = np.random.default_rng(1).integers(60, 200, (15, 20, 3), np.uint8)
WALL = cv2.resize(PATTERN, (320, 240), interpolation=cv2.INTER_CUBIC)  # something to tell crops by
EMPTY = np.ascontiguousarray(
    np.broadcast_to(np.linspace(40, 200, 320)[:, None].astype(np.uint8), (240, 320, 3))
)


def sees(x=160, y=120, size=100):
    """A detector that sees one face in every image, always at the same place."""
    return Detector("fake", lambda image: [Face(x, y, size)])


BLIND = Detector("blind", lambda image: [])


def talking(count=9, **options):
    return [drawn.face(160, 110, 120, mouth=i % 3 / 2, **options) for i in range(count)]


def walls(count=9):
    return [WALL] * count


def unlike(image, other):
    """Mean absolute difference in grey, which compression keeps better than colour."""
    return np.abs(image.mean(-1) - other.mean(-1)).mean()


def read(root, tmp_path, **options):
    return folder.read(
        str(root), cache=str(tmp_path / "cache"), **{"detector": sees(), "size": 64, **options}
    )


def reasons(source):
    return {each.id: each.reason for each in source.set_aside}


def error_of(root, tmp_path, **options):
    with pytest.raises(UserError) as error:
        read(root, tmp_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------- what is read, and how


def test_videos_and_frame_folders_at_any_depth(tmp_path):
    root = tmp_path / "data"
    drawn.video(root / "b" / "deep" / "one.mp4", talking())
    drawn.video(root / "two.avi", talking(), "MJPG")
    drawn.image_folder(root / "b" / "frames", talking())
    for junk in (
        "Thumbs.db",
        ".DS_Store",
        "Desktop - Shortcut.lnk",
        "ATTRIBUTION.md",
        "._two.avi",
        "b/.hidden.mp4",
    ):
        (root / junk).write_bytes(b"junk")
    drawn.video(root / "__MACOSX" / "two.mp4", talking(2))
    drawn.video(root / ".trash" / "three.mp4", talking(2))
    done = []
    source = read(
        root, tmp_path, detector=faces.haar(), size=96, progress=lambda *of: done.append(of)
    )
    assert source.name == "folder"
    assert [clip.id for clip in source.clips] == ["b/deep/one", "b/frames", "two"]
    assert [len(clip.frames) for clip in source.clips] == [9, 9, 9]
    assert [clip.fps for clip in source.clips] == [25, 0, 25]
    assert source.set_aside == ()
    assert done == [(1, 3), (2, 3), (3, 3)]
    for clip in source.clips:
        image = frames.crop(frames.read_frame(clip.frames, 4), clip.box, 96)
        assert image.shape == (96, 96, 3)
        (face,) = faces.haar()(image)
        assert np.hypot(face.x - 48, face.y - 48) < 12, "the face is in the middle of the crop"


def test_a_video_is_cropped_by_one_box_for_all_its_frames(tmp_path):
    moving = [Face(150 + 10 * i, 120, 100) for i in range(3)]
    looks = itertools.cycle(moving)
    drawn.video(tmp_path / "data" / "a.avi", walls(), "MJPG")
    (clip,) = read(
        tmp_path / "data", tmp_path, detector=Detector("moving", lambda image: [next(looks)])
    ).clips
    assert clip.box is None, "the crop is in the frames"
    box = faces.steady_box([[face] for face in moving])
    for i in range(9):
        assert unlike(frames.read_frame(clip.frames, i), frames.crop(WALL, box, 64)) < 3


def test_frames_are_in_the_order_of_their_numbers_and_stay_where_they_are(tmp_path):
    where = drawn.image_folder(tmp_path / "data" / "clip", walls(11))
    (clip,) = read(tmp_path / "data", tmp_path).clips
    assert clip.frames == frames.ImageFolder(str(where), tuple(f"img{i}.jpg" for i in range(1, 12)))
    assert clip.box == Box(110, 70, 100)
    assert not list((tmp_path / "cache").rglob("*.jpg"))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("img46.jpg", 46),
        ("006_05562.jpg", 5562),
        ("reg_image017123.bmp", 17123),
        ("1.jpg", 1),
        ("x.2.jpeg", 2),
        ("face.jpg", None),
    ],
)
def test_frame_numbers(name, number):
    assert frames.frame_number(name) == number


def test_frame_order_does_not_depend_on_padding_or_listing():
    names = ["cover.jpg", "a1.jpg", "a02.jpg", "a9.jpg", "a010.jpg", "a100.jpg"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(names, len(names))
        assert sorted(shuffled, key=frames.frame_order) == names


@pytest.mark.parametrize(
    "name",
    [
        "img{}.jpg",
        "reg_img{}.jpg",
        "006_{:05d}.jpg",
        "frame{}_0.jpg",
        "img{}_224x224.jpg",
        "{} (2).png",
        "s01_{}_of_12.jpg",
    ],
)
def test_frames_are_in_the_natural_order_of_their_whole_names(name):
    names = [name.format(i) for i in range(1, 13)]
    assert sorted(sorted(names), key=frames.frame_order) == names


def test_names_that_are_times_are_in_the_order_of_the_times():
    names = [f"{second:.2f}.jpg" for second in np.arange(0.88, 1.4, 0.04)]
    assert sorted(random.Random(0).sample(names, len(names)), key=frames.frame_order) == names


def test_names_of_any_form_can_be_compared():
    names = ["cover.jpg", "x.png", "1.jpg", "2a.jpg", "A1.png", "a1.jpg", "a1b.jpg", "a2.jpg"]
    assert sorted(random.Random(0).sample(names, len(names)), key=frames.frame_order) == names


def test_the_root_itself_may_hold_the_frames(tmp_path):
    (clip,) = read(drawn.image_folder(tmp_path / "mine", walls(3)), tmp_path).clips
    assert clip.id == "mine"


def test_equal_names_keep_their_suffixes(tmp_path):
    drawn.video(tmp_path / "data" / "a.mp4", walls(3))
    drawn.video(tmp_path / "data" / "a.avi", walls(3), "MJPG")
    drawn.image_folder(tmp_path / "data" / "a", walls(3))
    drawn.video(tmp_path / "data" / "b.avi", walls(3), "MJPG")
    assert [clip.id for clip in read(tmp_path / "data", tmp_path).clips] == [
        "a",
        "a.avi",
        "a.mp4",
        "b",
    ]


def test_a_name_that_is_no_text_is_read_and_shown(tmp_path):
    root = tmp_path / "data"
    drawn.video(root / "good.avi", walls(3), "MJPG")
    for name in (b"\xd6\xd0.avi", b"s01:ep 02 .avi"):
        odd = os.path.join(os.fsencode(root), name)
        with open(odd, "wb") as file:
            file.write((root / "good.avi").read_bytes())
    drawn.image_folder(root / os.fsdecode(b"\xce\xc4"), walls(3), os.fsdecode(b"\xce{}.jpg"))
    broken = drawn.image_folder(root / "broken", walls(3), os.fsdecode(b"\xce{}.jpg"))
    (broken / os.fsdecode(b"\xce2.jpg")).write_bytes(b"")
    source = read(root, tmp_path)
    assert [clip.id for clip in source.clips] == ["\\xce\\xc4", "\\xd6\\xd0", "good", "s01:ep 02 "]
    assert [len(clip.frames) for clip in source.clips] == [3, 3, 3, 3]
    assert reasons(source) == {"broken": "an unreadable image: \\xce2.jpg"}
    for clip in source.clips:
        assert frames.read_frame(clip.frames, 2).shape[2] == 3


def test_links_are_followed_once_and_the_cache_is_not_read(tmp_path):
    elsewhere = drawn.image_folder(tmp_path / "elsewhere", walls(3))
    root = tmp_path / "data"
    drawn.video(root / "a.mp4", walls(3))
    (root / "linked").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    (root / "lost.mp4").symlink_to(root / "nowhere.mp4")
    for _ in range(2):
        source = folder.read(str(root), cache=str(root / "cache"), detector=sees(), size=64)
        assert [clip.id for clip in source.clips] == ["a", "linked"]
        assert reasons(source) == {"lost": "cannot be opened: No such file or directory"}


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path):
    for name in "dacb":
        drawn.video(tmp_path / "data" / f"{name}.avi", walls(3), "MJPG")
    one = folder.read(
        str(tmp_path / "data"), cache=str(tmp_path / "one"), detector=sees(), workers=1
    )
    three = folder.read(
        str(tmp_path / "data"), cache=str(tmp_path / "three"), detector=sees(), workers=3
    )
    assert [clip.id for clip in one.clips] == [clip.id for clip in three.clips] == list("abcd")


def test_the_number_of_opencv_threads_is_given_back(tmp_path):
    drawn.image_folder(tmp_path / "data", walls(3))
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        read(tmp_path / "data", tmp_path)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


# --------------------------------------------------------------- frames that are face crops already


@pytest.mark.parametrize("name", ["a.MTS", "a.ts", "a.m2ts", "a.3gp", "a.flv", "a.MP4", "a.mxf"])
def test_videos_of_cameras_and_phones_are_read(tmp_path, name):
    codec = "mpeg2video" if name == "a.mxf" else "h264"
    drawn.film(tmp_path / "data" / name, talking(), codec)
    found = read(tmp_path / "data", tmp_path)
    assert [(clip.id, len(clip.frames), clip.fps) for clip in found.clips] == [("a", 9, 25)]
    assert (found.notes, found.set_aside) == ((), ())


def test_files_that_are_neither_videos_nor_images_are_told(tmp_path):
    root = tmp_path / "data"
    drawn.image_folder(root / "a", talking())
    for name in ("a/x.heic", "b.PDF", "c.pdf", "Thumbs.db", ".hidden", "desktop.ini"):
        (root / name).write_bytes(b"x")
    assert read(root, tmp_path).notes == ("3 files passed over: .PDF .heic .pdf",)
    for image in (root / "a").glob("*.jpg"):
        image.unlink()
    assert "(3 files passed over: .PDF .heic .pdf)" in error_of(root, tmp_path)


def test_a_tiff_file_of_several_pages_is_a_clip_and_those_of_one_are_frames(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    films = [talking(), [image // 2 for image in talking()]]
    for name, images in zip(("a.tif", "b.TIFF"), films, strict=True):
        cv2.imwritemulti(str(root / name), [image[:, :, ::-1].copy() for image in images])
    for number, image in enumerate(talking(5)):
        cv2.imwrite(str(root / f"c{number}.tif"), image[:, :, ::-1])
    found = read(root, tmp_path, size=240, cropped=True)
    assert [(clip.id, len(clip.frames)) for clip in found.clips] == [
        ("a", 9),
        ("b", 9),
        ("data", 5),
    ]
    for clip, images in zip(found.clips, [*films, talking(5)], strict=True):
        for i in (0, 4):
            shown = frames.crop(images[i], None, 240)
            assert unlike(frames.crop(frames.read_frame(clip.frames, i), None, 240), shown) < 1.5


def test_a_tiff_file_that_is_cut_off_says_so(tmp_path):
    root = tmp_path / "data"
    drawn.image_folder(root / "good", talking())
    cv2.imwritemulti(str(root / "a.tif"), talking())
    content = (root / "a.tif").read_bytes()
    (root / "a.tif").write_bytes(content[: len(content) // 2])
    found = read(root, tmp_path)
    assert [clip.id for clip in found.clips] == ["good"]
    assert [each.id for each in found.set_aside] == ["data"]


@pytest.mark.parametrize(
    ("bits", "form"), [(10, ".png"), (12, ".png"), (14, ".tif"), (12, "pages")]
)
def test_clips_of_fewer_bits_than_their_files_are_as_bright_as_others(tmp_path, bits, form):
    root = tmp_path / "data"
    images = talking()
    deep = [(image[:, :, ::-1].astype(np.uint16) << (bits - 8)) + 3 for image in images]
    (root / "a").mkdir(parents=True)
    if form == "pages":
        cv2.imwritemulti(str(root / "a.tif"), deep)
    else:
        for number, image in enumerate(deep):
            cv2.imwrite(str(root / "a" / f"{number}{form}"), image)
    found = read(root, tmp_path, size=240, cropped=True)
    (clip,) = found.clips
    assert found.notes[-1].endswith(f"1 (a: values of {bits} bits)")
    for i in (0, 8):
        shown = frames.crop(frames.read_frame(clip.frames, i), None, 240)
        assert unlike(shown, frames.crop(images[i], None, 240)) < 1.5


def test_images_that_fill_all_16_bits_are_read_without_a_word(tmp_path):
    (tmp_path / "data").mkdir()
    for number, image in enumerate(talking()):
        deep = image.astype(np.uint16) * 257
        cv2.imwrite(str(tmp_path / "data" / f"{number}.png"), deep[:, :, ::-1])
    found = read(tmp_path / "data", tmp_path)
    assert not [note for note in found.notes if "bits" in note]
    assert (frames.read_frame(found.clips[0].frames, 2) == talking()[2]).all()


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_a_face_that_fills_the_frame_is_not_cropped_again(tmp_path, kind):
    close = [drawn.face(64, 60, 110, shape=(128, 128), mouth=i % 2) for i in range(5)]
    if kind == "frames":
        drawn.image_folder(tmp_path / "data" / "a", close)
    else:
        drawn.video(tmp_path / "data" / "a.avi", close, "MJPG")
    source = read(tmp_path / "data", tmp_path, detector=faces.haar(), size=128)
    (clip,) = source.clips
    assert clip.box is None
    assert unlike(frames.read_frame(clip.frames, 2), close[2]) < 3
    assert source.notes == ("1 of 1 videos or folders taken as cropped already",)


def test_a_crop_too_tight_for_the_detector_is_searched_with_a_rim(tmp_path):
    widths = []

    def needs_room(image):
        widths.append(image.shape[1])
        return [Face(150, 150, 110)] if image.shape[1] > 200 else []

    drawn.image_folder(tmp_path / "data", [WALL[:200, :200]] * 3)
    (clip,) = read(tmp_path / "data", tmp_path, detector=Detector("needs room", needs_room)).clips
    assert widths == [200, 300] * 3
    assert clip.box == Box(45, 45, 110), "in pixels of the image without its rim"


def test_cropped_frames_are_not_searched(tmp_path):
    drawn.video(tmp_path / "data" / "a.avi", walls(3), "MJPG")
    drawn.image_folder(tmp_path / "data" / "b", walls(3))

    def search(image):
        raise AssertionError("searched")

    a, b = read(tmp_path / "data", tmp_path, detector=Detector("none", search), cropped=True).clips
    assert a.box is None
    assert b.box is None
    whole = cv2.resize(WALL, (64, 64), interpolation=cv2.INTER_AREA)
    assert unlike(frames.read_frame(a.frames, 0), whole) < 3


def test_cropped_false_always_crops(tmp_path):
    drawn.image_folder(tmp_path / "data", [WALL[:100, :100]] * 3)
    tight = sees(50, 50, 90)
    assert read(tmp_path / "data", tmp_path, detector=tight).clips[0].box is None
    assert read(tmp_path / "data", tmp_path, detector=tight, cropped=False).clips[0].box == Box(
        5, 5, 90
    )


# -------------------------------------------------------------------------------------------- shots


def test_a_video_is_split_at_a_hard_cut_and_each_shot_has_its_own_box(tmp_path):
    left = [drawn.face(90, 110, 100, mouth=i % 2, wall=(60, 90, 140)) for i in range(12)]
    right = [drawn.face(220, 120, 130, mouth=i % 2, wall=(170, 160, 90)) for i in range(10)]
    drawn.video(tmp_path / "data" / "talk.avi", left + right, "MJPG")
    drawn.image_folder(tmp_path / "data" / "walk", left + right)
    source = read(tmp_path / "data", tmp_path, detector=faces.haar())
    assert [(clip.id, len(clip.frames)) for clip in source.clips] == [
        ("talk#1", 12),
        ("talk#2", 10),
        ("walk#1", 12),
        ("walk#2", 10),
    ]
    first, second = source.clips[2:]
    assert first.frames.names[-1] == "img12.jpg"
    assert second.frames.names[0] == "img13.jpg"
    assert abs(first.box.left + first.box.size / 2 - 90) < 8
    assert abs(second.box.left + second.box.size / 2 - 220) < 8
    assert source.notes == (
        "2 of 2 videos or folders divided into clips, at hard cuts or after at most 128 frames",
    )


def test_a_shot_without_a_face_costs_only_itself(tmp_path):
    flash = [255 - EMPTY] * 2
    drawn.video(tmp_path / "data" / "a.avi", talking(8) + [EMPTY] * 8 + flash + talking(8), "MJPG")
    source = read(tmp_path / "data", tmp_path, detector=faces.haar())
    assert [clip.id for clip in source.clips] == ["a#1", "a#4"]
    assert reasons(source) == {
        "a#2": "no usable face: one in 0 of 8 frames searched, the same in half of them wanted",
        "a#3": "too short a shot: 2 frames between two cuts, at least 4 wanted",
    }


@pytest.mark.parametrize("form", ["video", "folder"])
@pytest.mark.parametrize(
    ("dark", "bright", "used"),
    [
        (1, 1, (0, 2)),  # half of the frames are enough for all of them
        (2, 3, (0, 5)),
        (4, 3, (4, 7)),
        (10, 5, (10, 15)),
        (60, 24, (60, 84)),
        (24, 60, (0, 84)),
        (100, 24, (100, 124)),
    ],
)
def test_a_face_that_comes_late_is_found(tmp_path, monkeypatch, form, dark, bright, used):
    """Its clip is the part that shows it, however short; it is told what was left out."""
    monkeypatch.setattr(shots, "THRESHOLD", 1.0)  # light alone is no cut, nor is it to be one here
    images = [WALL // 8] * dark + [WALL] * bright
    if form == "video":
        drawn.video(tmp_path / "data" / "a.avi", images, "MJPG")
    else:
        drawn.image_folder(tmp_path / "data" / "a", images)
    late = Detector("late", lambda image: [Face(160, 120, 100)] if image.mean() > 60 else [])
    source = read(tmp_path / "data", tmp_path, detector=late)
    (clip,) = source.clips
    first, end = used
    numbers = [frames.frame_number(name) - (form == "folder") for name in clip.frames.names]
    assert numbers == list(range(first, end)), "image files count from 1"
    part = f"{end - first} of {dark + bright} frames"
    whole = end - first == dark + bright
    assert [each.what for each in source.repairs] == ([] if whole else [f"{part} are used"])
    told = [note for note in source.notes if "where they show their face" in note]
    assert told == [] if whole else told[0].endswith(f"1 (a: {part})")
    assert read(tmp_path / "data", tmp_path, detector=late) == source, "as it was remembered"


@pytest.mark.parametrize("form", ["video", "folder"])
def test_a_crop_is_turned_so_that_the_eyes_are_level(tmp_path, form):
    """Of a head that is tilted by 20 degrees; the detector tells so, as YuNet does."""
    level = drawn.face(160, 110, 120)
    turn = cv2.getRotationMatrix2D((159.5, 119.5), -20, 1.0)
    tilted = cv2.warpAffine(level, turn, (320, 240), borderMode=cv2.BORDER_REPLICATE)
    if form == "video":
        drawn.video(tmp_path / "data" / "a.avi", [tilted] * 5, "MJPG")
    else:
        drawn.image_folder(tmp_path / "data" / "a", [tilted] * 5)
    eyes = Detector("fake+eyes", lambda image: [Face(160, 120, 140, 20.0)])
    (clip,) = read(tmp_path / "data", tmp_path, detector=eyes, size=140).clips
    image = frames.crop(frames.read_frame(clip.frames, 0), clip.box, 140)
    upright = frames.crop(level, Box(90, 50, 140), 140)
    assert unlike(image, upright) < 4
    assert unlike(frames.crop(tilted, Box(90, 50, 140), 140), upright) > 8, "the test can fail"


def test_a_long_shot_is_divided_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "LONGEST", 10)
    drawn.video(tmp_path / "data" / "a.avi", walls(25), "MJPG")
    clips = read(tmp_path / "data", tmp_path).clips
    assert [(clip.id, len(clip.frames)) for clip in clips] == [("a#1", 8), ("a#2", 8), ("a#3", 9)]
    assert len({name for clip in clips for name in clip.frames.names}) == 25


def test_numbers_of_many_shots_are_padded():
    assert shots.spans([0.0] * 1200, 100) == [(i, i + 100) for i in range(0, 1200, 100)]
    verdict = extract.Verdict(tuple(extract.Shot(*span) for span in shots.spans([0.0] * 1200, 100)))
    clips, _ = extract._clips(extract.Item("a", "a.mp4"), "entry", verdict)
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips)
    assert clips[0].id == "a#01"


def changes(images):
    thumbnails = [shots.thumbnail(image) for image in images]
    return [0.0, *itertools.starmap(shots.change, itertools.pairwise(thumbnails))]


def test_exposure_is_no_cut():
    dark = [np.clip(image * 0.6 + 5, 0, 255).astype(np.uint8) for image in talking(8)]
    assert shots.cuts(changes(talking(8) + dark)) == []


def test_black_frames_are_a_shot_of_their_own():
    rng = np.random.default_rng(0)
    black = [rng.integers(0, 4, (240, 320, 3), np.uint8) for _ in range(6)]
    assert shots.cuts(changes(walls(6) + black + walls(6))) == [6, 12]


def test_a_fast_pan_is_no_cut():
    wide = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 60, 3), np.uint8), (2400, 240))
    pan = [wide[:, x : x + 320] for x in [0] * 6 + list(range(0, 700, 50)) + [700] * 6]
    assert max(changes(pan)) > shots.THRESHOLD, "or this shows nothing"
    assert shots.cuts(changes(pan)) == []


def test_cuts_by_hand():
    still = [0.01] * 9
    assert shots.cuts([0.0, *still, 0.5, *still, 0.16, *still]) == [10, 20]
    assert shots.cuts([0.0, *still, 0.14, *still]) == []
    assert shots.cuts([0.0, 0.5]) == []
    assert shots.cuts([0.9]) == []
    assert shots.cuts([0.0, 0.4, 0.4, 0.4, 0.4, 0.4]) == []


# ---------------------------------------------------------------------------------------- set aside


def test_every_bad_clip_is_set_aside_with_its_reason_and_costs_no_other(tmp_path):
    root = tmp_path / "data"
    drawn.video(root / "good.mp4", walls())
    (root / "garbage.mp4").write_bytes(random.Random(0).randbytes(4000))
    (root / "empty.avi").write_bytes(b"")
    whole = drawn.video(root / "cut off.mp4", walls()).read_bytes()
    (root / "cut off.mp4").write_bytes(whole[: len(whole) // 2])
    drawn.video(root / "single.avi", walls(1), "MJPG")
    resized = [cv2.resize(WALL, (240, 320))] * 3
    (root / "resized.avi").write_bytes(b"".join(map(drawn.jpeg, walls(3) + resized)))
    drawn.image_folder(root / "one image", walls(1))
    drawn.image_folder(root / "mixed", [*walls(2), *resized])
    drawn.image_folder(root / "broken", walls(5))
    (root / "broken" / "img3.jpg").write_bytes(b"not a picture")
    drawn.image_folder(root / "cut image", walls(5))
    part = (root / "cut image" / "img4.jpg").read_bytes()
    (root / "cut image" / "img4.jpg").write_bytes(part[: len(part) * 97 // 100])
    drawn.image_folder(root / "huge", walls(3))
    (root / "huge" / "img2.jpg").write_bytes(drawn.png_that_claims(100_000, 100_000))
    source = read(root, tmp_path)
    assert [clip.id for clip in source.clips] == ["good"]
    assert reasons(source) == {
        "broken": "an unreadable image: img3.jpg",
        "cut image": "an unreadable image: img4.jpg",
        "cut off": "no frame could be decoded",
        "empty": "no frame could be decoded",
        "garbage": "no frame could be decoded",
        "huge": "an unreadable image: img2.jpg",
        "mixed": "images of different sizes: img1.jpg is 320x240, img3.jpg is 240x320",
        "one image": "a single image: a pair of frames needs two",
        "resized": "the frame size changes from 320x240 to 240x320 at frame 3",
        "single": "only one frame: a pair of frames needs two",
    }


def test_a_video_without_a_face_is_set_aside(tmp_path):
    drawn.video(tmp_path / "data" / "face.mp4", talking())
    drawn.video(tmp_path / "data" / "wall.mp4", [EMPTY] * 9)
    source = read(tmp_path / "data", tmp_path, detector=faces.haar())
    assert [clip.id for clip in source.clips] == ["face"]
    assert reasons(source) == {
        "wall": "no usable face: one in 0 of 9 frames searched, the same in half of them wanted"
    }


def test_a_damaged_video_is_used_as_far_as_it_is_whole_and_told_with_both_counts(tmp_path):
    whole = drawn.video(tmp_path / "whole.avi", talking(20), "MJPG").read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "data" / "good.avi").write_bytes(whole)
    for run in ("found out", "remembered"):
        source = read(tmp_path / "data", tmp_path)
        cut, good = source.clips
        count = len(cut.frames)
        assert 5 < count < 12, run
        assert len(good.frames) == 20
        lacks = f"{count} of 20 frames"
        assert source.notes == (
            f"cut off or damaged videos that are used as far as they are whole: 1 (cut: {lacks})",
        )
        (repair,) = source.repairs
        assert (repair.id, repair.what) == ("cut", f"{lacks} are used")


# ------------------------------------------------------------------------------ nothing can be read


def test_a_root_that_is_missing_or_a_file(tmp_path):
    assert "does not exist; give a folder of videos" in error_of(tmp_path / "absent", tmp_path)
    path = drawn.video(tmp_path / "a.mp4", walls(3))
    assert "is a file; give a folder of videos" in error_of(path, tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    drawn.video(tmp_path / "data" / "good.mp4", walls())
    drawn.video(tmp_path / "data" / "closed" / "lost.mp4", walls())
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert "closed: the folder cannot be listed (Permission denied)" in error_of(
        tmp_path / "data", tmp_path
    )


def test_a_root_without_videos_or_images(tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    assert "holds neither videos nor images" in error_of(tmp_path / "data", tmp_path)
    (tmp_path / "data" / "inner" / "notes.txt").write_text("no pictures")
    assert "holds neither videos nor images" in error_of(tmp_path / "data", tmp_path)


def test_all_clips_set_aside_names_the_commonest_reason(tmp_path):
    for name in "abc":
        drawn.video(tmp_path / "data" / f"{name}.mp4", walls())
    drawn.image_folder(tmp_path / "data" / "d", walls(1))
    said = error_of(tmp_path / "data", tmp_path, detector=BLIND)
    assert "none of its 4 clips can be used; most often (3): no usable face" in said


def test_a_cache_that_cannot_be_written(tmp_path):
    drawn.image_folder(tmp_path / "data", walls(3))
    (tmp_path / "cache").write_text("a file in the way")
    assert "the cache cannot be made" in error_of(tmp_path / "data", tmp_path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    drawn.video(tmp_path / "data" / "a.mp4", walls(3))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract, "_keep_frames", full)
    assert "cannot be written (No space left on device)" in error_of(tmp_path / "data", tmp_path)


# ---------------------------------------------------------------------------------------- the cache


@pytest.fixture
def decoded(monkeypatch):
    """The paths that were decoded, and the images that were read, so far."""
    paths, decode, read_frame = [], video.decode, frames.read_frame
    monkeypatch.setattr(
        video,
        "decode",
        lambda path, *tell: paths.append(os.path.basename(path)) or decode(path, *tell),
    )
    monkeypatch.setattr(
        frames,
        "read_frame",
        lambda images, i: paths.append(images.names[i]) or read_frame(images, i),
    )
    return paths


def test_the_second_call_decodes_nothing(tmp_path, decoded):
    root = tmp_path / "data"
    drawn.video(root / "a.mp4", walls(5))
    drawn.image_folder(root / "b", walls(3))
    (root / "garbage.mp4").write_bytes(b"garbage")
    first = read(root, tmp_path)
    assert decoded.count("a.mp4") == 3, "for its shots, for faces in short ones, to crop"
    decoded.clear()
    assert read(root, tmp_path) == first
    assert decoded == []


def test_no_face_is_remembered(tmp_path, decoded):
    drawn.video(tmp_path / "data" / "a.mp4", walls(5))
    first = error_of(tmp_path / "data", tmp_path, detector=BLIND)
    assert decoded == ["a.mp4"] * 2
    assert error_of(tmp_path / "data", tmp_path, detector=BLIND) == first
    assert decoded == ["a.mp4"] * 2


@pytest.mark.parametrize("change", ["file", "size", "detector", "cropped"])
def test_a_change_is_noticed(tmp_path, decoded, change):
    path = drawn.video(tmp_path / "data" / "a.mp4", walls(5))
    (before,) = read(tmp_path / "data", tmp_path).clips
    options = {
        "size": {"size": 32},
        "detector": {"detector": Detector("other", sees().find)},
        "cropped": {"cropped": True},
    }.get(change, {})
    if change == "file":
        drawn.video(path, walls(7))
    decoded.clear()
    (after,) = read(tmp_path / "data", tmp_path, **options).clips
    assert decoded == ["a.mp4"] * (2 if change == "cropped" else 3)
    assert after.frames != before.frames


def test_a_new_image_in_a_folder_is_noticed(tmp_path):
    drawn.image_folder(tmp_path / "data", walls(3))
    assert len(read(tmp_path / "data", tmp_path).clips[0].frames) == 3
    drawn.image_folder(tmp_path / "data", walls(4))
    assert len(read(tmp_path / "data", tmp_path).clips[0].frames) == 4


def test_an_image_that_is_written_over_is_noticed(tmp_path):
    """A folder's own time stays as it is when a file in it is written over."""
    where = drawn.image_folder(tmp_path / "data" / "a", walls(6))
    drawn.image_folder(tmp_path / "data" / "b", walls(6))
    whole = (where / "img4.jpg").read_bytes()
    (where / "img4.jpg").write_bytes(b"")
    before = os.stat(where).st_mtime_ns
    assert reasons(read(tmp_path / "data", tmp_path)) == {"a": "an unreadable image: img4.jpg"}
    (where / "img4.jpg").write_bytes(whole)
    assert os.stat(where).st_mtime_ns == before, "or this shows nothing"
    source = read(tmp_path / "data", tmp_path)
    assert [len(clip.frames) for clip in source.clips] == [6, 6]


@pytest.mark.parametrize("decoder", [video, frames])
def test_another_version_of_a_decoder_is_asked_again(tmp_path, decoded, monkeypatch, decoder):
    drawn.video(tmp_path / "data" / "a.mp4", walls(5))
    drawn.image_folder(tmp_path / "data" / "b", walls(3))
    read(tmp_path / "data", tmp_path)
    decoded.clear()
    monkeypatch.setattr(decoder, "DECODER", "the next version")
    read(tmp_path / "data", tmp_path)
    assert "a.mp4" in decoded if decoder is video else "img1.jpg" in decoded


@pytest.mark.parametrize("name", ["a.mp4", "b"])
def test_a_disk_that_was_away_is_not_remembered(tmp_path, monkeypatch, name):
    drawn.video(tmp_path / "data" / "a.mp4", walls(5))
    drawn.image_folder(tmp_path / "data" / "b", walls(3))
    real = open

    def away(path, *mode, **options):
        if "data" in str(path) and name in str(path):
            raise OSError(5, "Input/output error")
        return real(path, *mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", away)
        source = read(tmp_path / "data", tmp_path)
        (reason,) = reasons(source).values()
        assert "Input/output error" in reason
    assert len(read(tmp_path / "data", tmp_path).clips) == 2


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    drawn.video(tmp_path / "data" / "a.mp4", walls(9))
    crop, calls = frames.crop, itertools.count()

    def interrupted(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return crop(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(frames, "crop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path / "data", tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    (clip,) = read(tmp_path / "data", tmp_path).clips
    assert all(frames.read_frame(clip.frames, i).shape == (64, 64, 3) for i in range(9))


def test_what_a_killed_run_left_is_swept_and_what_another_run_writes_is_not(tmp_path):
    drawn.video(tmp_path / "data" / "a.mp4", walls(3))
    (clip,) = read(tmp_path / "data", tmp_path).clips
    entry = pathlib.Path(clip.frames.folder)
    dead, alive = (entry.with_name(f"{entry.name}.{end}") for end in ("dead", "alive"))
    for left in (dead, alive):
        left.mkdir()
        (left / "000000.jpg").write_bytes(b"half a pict")
    os.utime(dead, (0, 0))
    files._left_in.cache_clear()  # as in another process
    (entry / "verdict.json").write_text(
        '{"shots": [{"fir'
    )  # and a verdict that lost its end with the power
    assert read(tmp_path / "data", tmp_path).clips == (clip,)
    assert not dead.exists()
    assert alive.exists()
    assert json.loads((entry / "verdict.json").read_text())["path"].endswith("a.mp4")


@pytest.mark.parametrize("closed", ["verdict.json", "found.json", "index-"])
def test_a_cache_closed_by_another_account_is_told_and_kept(tmp_path, monkeypatch, caplog, closed):
    """As root may read everything, the system's answer is made up."""
    drawn.video(tmp_path / "data" / "a.mp4", walls(3))
    cache = tmp_path / "cache"

    def use():
        read(tmp_path / "data", tmp_path)
        with disk.remembered(str(cache / "found.json")) as found:
            found["a"] = 1
        listing.clip_folders(str(tmp_path / "data"), 0, cache=str(cache))

    use()
    kept = sorted(cache.rglob("*"))
    real = open

    def forbidden(path, *mode, **options):
        if closed in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", forbidden)
        with pytest.raises(UserError, match=r"cannot be read \(Permission denied\).* cache folder"):
            use()
    assert sorted(cache.rglob("*")) == kept
    assert "thrown away" not in caplog.text


def test_two_runs_that_make_the_same_entry_agree(tmp_path, monkeypatch):
    drawn.video(tmp_path / "data" / "a.mp4", walls(3))
    keep = extract._keep_frames

    def while_another_is_quicker(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(extract, "_keep_frames", keep)
            read(tmp_path / "data", tmp_path)
        keep(*arguments)

    monkeypatch.setattr(extract, "_keep_frames", while_another_is_quicker)
    (clip,) = read(tmp_path / "data", tmp_path).clips
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        os.path.basename(clip.frames.folder)
    ]


# -------------------------------------------------------------------------------------- real videos


@pytest.mark.skipif(not FACES.is_dir(), reason=f"the real videos are not at {FACES}")
def test_real_faces(tmp_path):
    names = ["grid_brbk7n.mpg", "grid_lwbsza.mpg", "intel_asl_bird.mkv", "intel_asl_eat.mkv"]
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).symlink_to(FACES / name)
    source = folder.read(str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    assert [clip.id for clip in source.clips] == [name.split(".")[0] for name in names]
    assert source.set_aside == ()
    for clip in source.clips:  # the face sits in the crop: centred, not cut, not lost in it
        (face,) = faces.haar()(frames.read_frame(clip.frames, 0))
        assert abs(face.x - 128) < 40
        assert abs(face.y - 128) < 40
        assert 140 < face.size < 280
