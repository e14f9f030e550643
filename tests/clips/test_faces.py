"""Faces are found, and one box holds the face of a whole clip."""

import types
from concurrent.futures import ThreadPoolExecutor

import cv2
import drawn
import numpy as np
import pytest

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.faces import Detector, Face
from ma2mi_jax.clips.frames import Box
from ma2mi_jax.errors import UserError


@pytest.fixture(scope="module")
def haar():
    return faces.haar()


@pytest.mark.parametrize("height", [60, 100, 160])
def test_brows_and_chin_and_cheeks_are_inside(haar, height):
    (face,) = haar(drawn.face(150, 110, height))
    half = face.size / 2
    assert face.y - half < 110 - 0.2 * height
    assert face.y + half > 110 + 0.56 * height
    assert face.x - half < 150 - 0.36 * height
    assert face.x + half > 150 + 0.36 * height
    assert face.size < 1.6 * height


def test_no_face_in_noise_or_on_a_blank_wall(haar):
    assert haar(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)) == []
    assert haar(np.full((240, 320, 3), 90, np.uint8)) == []


def test_a_large_image_is_shrunk_for_the_search_alone(haar):
    (small,), (large,) = (
        haar(drawn.face(160, 120, 120)),
        haar(drawn.face(960, 720, 720, shape=(1440, 1920))),
    )
    np.testing.assert_allclose(
        [large.x / 6, large.y / 6, large.size / 6], [small.x, small.y, small.size], atol=6
    )


def test_threads_share_a_detector(haar):
    images = [drawn.face(100 + 10 * i, 120, 110) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(haar, images * 3)) == [haar(image) for image in images] * 3


def test_a_head_at_rest_has_its_own_square():
    assert faces.steady_box([[Face(100, 80, 60)]] * 7) == Box(70, 50, 60)


def test_one_wild_detection_does_not_move_the_box():
    looks = [[Face(100, 80, 60)]] * 11 + [[Face(115, 90, 90)]]
    assert faces.steady_box(looks) == Box(70, 50, 60)


def test_a_moving_head_stays_inside():
    box = faces.steady_box([[Face(100 + step, 80, 60)] for step in range(0, 31, 3)])
    assert box.left <= 100 + 3 - 30
    assert box.left + box.size >= 100 + 27 + 30
    assert box.size <= 60 + 30


def test_the_larger_face_wins_unless_it_is_seldom_seen():
    large, small = Face(200, 100, 90), Face(60, 100, 60)
    assert faces.steady_box([[small, large]] * 6) == Box(155, 55, 90)
    assert faces.steady_box([[small]] * 5 + [[small, large]] * 3) == Box(30, 70, 60)


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [[]] * 8,
        [[Face(100, 80, 60)]] * 3 + [[]] * 5,
        [[Face(80 * i, 80, 60)] for i in range(8)],
    ],
    ids=["no frames", "no face", "in too few frames", "never the same place"],
)
def test_no_steady_face(looks):
    assert faces.steady_box(looks) is None


def test_half_of_the_frames_are_enough():
    assert faces.steady_box([[Face(100, 80, 60)]] * 4 + [[]] * 4) == Box(70, 50, 60)


def test_the_box_may_reach_over_the_border():
    assert faces.steady_box([[Face(20, 20, 60)]]) == Box(-10, -10, 60)


def test_clip_box_looks_at_images_spread_over_the_clip():
    seen = []
    spy = Detector("spy", lambda image: seen.append(image[0, 0, 0].item()) or [Face(20, 20, 30)])
    images = [np.full((40, 40, 3), i, np.uint8) for i in range(50)]
    assert faces.clip_box(images, spy, looks=5) == Box(5, 5, 30)
    assert seen == [0, 12, 24, 36, 49]
    seen.clear()
    faces.clip_box(images, spy, looks=1)
    assert seen == [0], "the onset frame alone"
    seen.clear()
    faces.clip_box(images[:3], spy)
    assert seen == [0, 1, 2]


def test_clip_box_with_the_cascade(haar):
    box = faces.clip_box(
        [drawn.face(150 + i, 110, 120, mouth=i / 10) for i in range(10)], haar, looks=4
    )
    assert abs(box.left + box.size / 2 - 155) < 8
    assert 120 < box.size < 1.6 * 120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mtcnn",), "detector=mtcnn: not a detector; give haar or yunet"),
        (("yunet",), "give detector_model="),
        (("yunet", "absent.onnx"), "detector_model=absent.onnx: no such file"),
    ],
)
def test_detectors_that_cannot_be_had(arguments, said):
    with pytest.raises(UserError, match=said) as error:
        faces.detector(*arguments)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_yunet_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(UserError, match="cannot load it as a YuNet model") as error:
        faces.detector("yunet", str(tmp_path / "model.onnx"))
    assert "\n" not in str(error.value)


def test_yunet_boxes_become_squares_around_the_face(tmp_path, monkeypatch):
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"weights")
    answers = [(1, np.array([[50, 40, 60, 80, *[0] * 10, 0.9]], np.float32)), (1, None)]
    sizes = []
    net = types.SimpleNamespace(setInputSize=sizes.append, detect=lambda image: answers.pop(0))
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_, **__: net)
    detect = faces.detector("yunet", str(model))
    assert detect.name == "yunet:yunet.onnx:7"
    image = np.zeros((200, 300, 3), np.uint8)
    assert detect(image) == [Face(80.0, 80.0, 96.0)]
    assert detect(image) == []
    assert sizes == [(300, 200)] * 2


def test_the_default_detector_is_haar():
    assert faces.detector().name == "haar"


@pytest.mark.parametrize("lacking", ["data", "CascadeClassifier"])
def test_an_opencv_without_cascades_is_told_before_any_frame_is_read(monkeypatch, lacking):
    """That of some systems has no `cv2.data`, and version 5 has no cascades at all."""
    monkeypatch.delattr(cv2, lacking)
    with pytest.raises(UserError, match=r"detector=haar.*frontalface.*give detector=yunet"):
        faces.detector("haar")
