"""Faces are found, and one box holds the face of a whole clip."""

import hashlib
import types
from concurrent.futures import ThreadPoolExecutor

import cv2
import drawn
import numpy as np
import pytest

from ma2mi_jax import hub
from ma2mi_jax.clips import faces, yunet_model
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


def test_frames_to_search_are_spread_from_the_first_to_the_last():
    assert faces.spread(50, 5) == [0, 12, 24, 36, 49]
    assert faces.spread(3) == [0, 1, 2]
    assert faces.spread(1) == [0]


@pytest.mark.parametrize(
    ("seen", "there"),
    [
        ("000000001111", (8, 11)),  # it comes
        ("111100000000", (0, 3)),  # it goes
        ("000110110000", (3, 7)),
        ("000000000011", (10, 11)),
        ("000000000001", None),  # a single sighting may be a mistake
        ("0" * 30 + "11", None),  # too seldom for so many looks
        ("000000", None),
    ],
)
def test_the_part_of_a_clip_that_shows_the_face(seen, there):
    assert faces.stretch([[Face(100, 80, 60)] * int(each) for each in seen]) == there


def test_a_crop_is_turned_by_the_median_angle_of_the_eyes():
    looks = [[Face(100, 80, 60, angle)] for angle in (9.0, 10.0, 10.0, 11.0, 80.0)]
    box = faces.steady_box(looks)
    assert box.angle == 10.0
    assert abs(box.left - 70) <= 1
    assert abs(box.top - 50) <= 1
    assert abs(box.size - 60) <= 1


def test_a_head_that_moves_along_a_tilted_line_stays_in_a_turned_crop():
    places = [(100 + 3 * i, 80 + i) for i in range(11)]
    box = faces.steady_box([[Face(x, y, 60, 20.0)] for x, y in places])
    turn = np.deg2rad(20)
    along, down = (np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))
    centre = np.array([box.left, box.top]) + box.size / 2
    for place in places[1:-1]:  # one in ten may stray
        for axis in (along, down):
            assert abs(np.dot(place - centre, axis)) + 30 <= box.size / 2 + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mtcnn",), "detector=mtcnn: not a detector; give auto, haar or yunet"),
        (("yunet",), "face_detection_yunet.*is in no cache.*give that file as detector_model"),
        (("haar", "m.onnx"), "detector_model=m.onnx is only for YuNet; remove detector=haar"),
        (("haar", None, "eyes"), "align=eyes: needs YuNet, for the haar detector does not see"),
        (("auto", None, "eyes"), "align=eyes: needs YuNet.*in no cache.*detector_model=face_"),
        (("yunet", "absent.onnx"), "detector_model=absent.onnx: no such file"),
    ],
)
def test_detectors_that_cannot_be_had(arguments, said, no_model):
    with pytest.raises(UserError, match=said) as error:
        faces.detector(*arguments)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_yunet_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(UserError, match="cannot load it as a YuNet model") as error:
        faces.detector("yunet", str(tmp_path / "model.onnx"))
    assert "\n" not in str(error.value)


def fake_net(monkeypatch, answers):
    """In place of YuNet's network: gives the rows of `answers` in turn, and keeps image sizes."""
    answers, sizes = list(answers), []
    net = types.SimpleNamespace(setInputSize=sizes.append, detect=lambda image: (1, answers.pop(0)))
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_, **__: net)
    return sizes


def row(*eyes):
    return np.array([[50, 40, 60, 80, *eyes, *[0] * 6, 0.9]], np.float32)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "yunet.onnx"
    path.write_bytes(b"weights")
    return str(path)


@pytest.fixture
def no_model(monkeypatch):
    """A machine without network whose caches are empty."""

    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "fetch", offline)


NAME = f"yunet:{hashlib.sha256(b'weights').hexdigest()[:12]}"


def test_yunet_boxes_become_squares_around_the_face(model, monkeypatch):
    sizes = fake_net(monkeypatch, [row(60, 70, 100, 110), None])
    detect = faces.detector("yunet", model)
    assert detect.name == NAME
    image = np.zeros((200, 300, 3), np.uint8)
    assert detect(image) == [Face(80.0, 80.0, 96.0)]
    assert detect(image) == []
    assert sizes == [(300, 200)] * 2


@pytest.mark.parametrize(("other", "angle"), [((100, 110), 45), ((100, 70), 0), ((100, 30), -45)])
def test_yunet_tells_the_angle_of_the_eyes_if_crops_are_to_be_turned(
    model, monkeypatch, other, angle
):
    fake_net(monkeypatch, [row(60, 70, *other)])
    detect = faces.detector("auto", model, "eyes")
    assert (detect.name, faces.align_of(detect.name)) == (NAME + "+eyes", "eyes")
    (face,) = detect(np.zeros((1280, 1920, 3), np.uint8))  # a third of the size is searched
    assert face == Face(240.0, 240.0, 288.0, pytest.approx(angle))


# ----- which detector -----------------------------------------------------------------------------


def test_auto_takes_the_model_that_is_given(model, monkeypatch, no_model):
    fake_net(monkeypatch, [])
    found = faces.detector("auto", model)
    assert (found.name, found.why) == (NAME, "its model was given")


def test_auto_takes_the_model_in_the_cache(tmp_path, monkeypatch, no_model):
    fake_net(monkeypatch, [])
    monkeypatch.setattr(yunet_model, "SHA256", hashlib.sha256(b"weights").hexdigest())
    (tmp_path / yunet_model.FILE).write_bytes(b"weights")
    found = faces.detector(cache=tmp_path)
    assert (found.name, found.why) == (NAME, "its model is in the cache")


def test_auto_takes_the_model_of_the_hub_in_its_pinned_revision(model, tmp_path, monkeypatch):
    fake_net(monkeypatch, [])
    monkeypatch.setattr(yunet_model, "SHA256", hashlib.sha256(b"weights").hexdigest())
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *which: asked.append(which) or model)
    found = faces.detector(cache=tmp_path)
    assert found.name == NAME
    assert found.why.endswith("of the hub")
    assert asked == [("opencv/face_detection_yunet", yunet_model.FILE, yunet_model.REVISION)]


def test_auto_is_haar_where_there_is_no_network(tmp_path, no_model):
    found = faces.detector(cache=tmp_path)
    assert found.name == "haar"
    assert found.why == (
        f"{yunet_model.FILE} is in no cache and cannot be had from the hub (ConnectionError)"
    )


def test_a_model_of_another_content_is_not_taken(model, tmp_path, monkeypatch):
    (tmp_path / yunet_model.FILE).write_bytes(b"a page that says 404")
    monkeypatch.setattr(hub, "fetch", lambda *_: model)
    found = faces.detector(cache=tmp_path)
    assert found.name == "haar"
    assert "the cache's face_detection_yunet_2023mar.onnx has another content" in found.why
    assert "what the hub gave" in found.why


def test_a_detector_is_chosen_when_it_is_needed_and_once():
    chosen = []
    later = faces.Deferred(
        lambda: chosen.append(1) or Detector("fake", lambda image: [Face(1, 2, 3)], "so")
    )
    assert not later.used
    assert not chosen
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: later.name, range(16))) == {"fake"}
    assert (later(np.zeros((4, 4, 3))), later.why) == ([Face(1, 2, 3)], "so")
    assert later.used
    assert len(chosen) == 1


def test_a_recorded_detector_is_found_again(model, monkeypatch, no_model):
    fake_net(monkeypatch, [])
    assert faces.like("haar", model, None).name == "haar"
    assert faces.like(NAME + "+eyes", model, None).name == NAME + "+eyes"
    with pytest.raises(UserError, match=f"found by yunet:0123, and this is {NAME}"):
        faces.like("yunet:0123", model, None)
    with pytest.raises(UserError, match=f"were found by {NAME}, and {yunet_model.FILE} is in no"):
        faces.like(NAME, None, None)


@pytest.mark.parametrize("lacking", ["data", "CascadeClassifier"])
def test_an_opencv_without_cascades_is_told_before_any_frame_is_read(monkeypatch, lacking):
    """That of some systems has no `cv2.data`, and version 5 has no cascades at all."""
    monkeypatch.delattr(cv2, lacking)
    with pytest.raises(UserError, match=r"detector=haar.*frontalface.*give detector=yunet"):
        faces.detector("haar")


def test_an_opencv_without_cascades_needs_yunet(monkeypatch, model, no_model):
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(UserError, match=r"detector=auto.*no haar.*detector_model=face_") as error:
        faces.detector()
    assert "\n" not in str(error.value)
    fake_net(monkeypatch, [])
    assert faces.detector("auto", model).name == NAME
