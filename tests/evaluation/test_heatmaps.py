"""Fig. 6 shows the clips that its rule names, with heat where there is heat; and every kind of row
has its picture."""

import cv2
import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.clips.spotting import Spotted
from ma2mi_jax.evaluation import heatmaps
from ma2mi_jax.evaluation.predictions import Predictions


def predictions(labels, first, second):
    clips = [
        Clip(str(k), ArrayFrames("", 0, 2), subject="s", label=label)
        for k, label in enumerate(labels)
    ]
    return Predictions(clips, ["s"] * len(labels), [0, 1], np.array([first, second], np.float32))


def test_the_most_confident_right_and_wrong_of_each_class():
    first = [
        [0.6, 0.3, 0.1],
        [0.9, 0.1, 0.0],
        [0.2, 0.8, 0.0],
        [0.3, 0.3, 0.4],
        [0.1, 0.7, 0.2],
        [0.1, 0.5, 0.4],
        [0.5, 0.4, 0.1],
    ]
    labels = [0, 0, 0, 0, 1, 1, 1]  # nobody shows class 2
    found = predictions(labels, first, [[0, 0, 1]] * 7)  # the second seed does not count
    assert heatmaps.choose(found) == [1, 2, 4, 6]
    assert heatmaps.choose(found, per_class=2) == [1, 0, 2, 3, 4, 5, 6]
    equal = predictions([0, 0], [[0.7, 0.3]] * 2, [[0.7, 0.3]] * 2)
    assert heatmaps.choose(equal) == [0]  # nothing is wrong; the earlier of two equals


def test_captions_say_what_is_wrong():
    assert (
        heatmaps.caption("s1/3", "anger", "fear", 0.456, "4+R10")
        == "s1/3\nanger\nAU 4+R10\nWRONG: fear 46%"
    )
    assert heatmaps.caption("s1/3", "anger", "anger", 1.0, "") == "s1/3\nanger\nright: anger 100%"


def test_heat_maps_of_a_kind_have_one_scale_over_all_rows():
    frame = np.zeros((4, 4, 3), np.uint8)

    def row(action, position, places):
        heat = (np.full((4, 4), value) for value in (action, position, places))
        return heatmaps.HeatRow(frame, frame, *(next(heat), next(heat)), places=next(heat))

    rows = [row(1.0, 2.0, 30.0), row(4.0, 0.0, 60.0)]
    assert heatmaps.scales(rows) == {"action": 4.0, "position": 4.0, "places": 60.0}
    alone = heatmaps.HeatRow(frame, frame, np.ones((4, 4)), None)
    assert heatmaps.scales([alone]) == {"action": 1.0}


def test_the_face_is_seen_through_its_heat_map(tmp_path, monkeypatch):
    """The picture of a frame with heat in a corner is, there too, still much of the frame."""
    seen = []
    monkeypatch.setattr(heatmaps, "save", lambda figure, path, title: seen.append(figure))
    frame = np.full((64, 64, 3), 90, np.uint8)
    frame[::8] = 250
    heat = np.zeros((64, 64))
    heat[:32, :32] = 1
    rows = [heatmaps.HeatRow(frame, frame, strength * heat, None) for strength in (1, 0.1, 0)]
    heatmaps.figure6(tmp_path / "6.png", rows, "three strengths")
    (figure,) = seen
    labels = [
        axis.get_xlabel() for axis in figure.axes if axis.get_xlabel().startswith(("at", "no"))
    ]
    assert labels == ["at most 100%", "at most 10%", "no place speaks for it"]
    strong, weak = (figure.axes[place] for place in (3, 7))
    assert len(strong.collections) == 2, "a tint and lines"
    assert all(each.get_alpha() in (None, 0.22) for each in strong.collections)
    for axis in (strong, weak):
        np.testing.assert_array_equal(axis.images[0].get_array(), frame)


@pytest.mark.parametrize("missing", [(), ("position",), ("places",), ("position", "places")])
def test_pictures_have_a_column_for_each_map(tmp_path, missing):
    rng = np.random.default_rng(0)
    onset, apex = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    maps = {
        name: None if name in missing else rng.uniform(0, 1, (32, 32)) for name in heatmaps.MAPS
    }
    rows = [
        heatmaps.HeatRow(onset, apex, caption="a clip", **maps),
        heatmaps.HeatRow(onset, onset, **maps | {"action": np.zeros((32, 32))}),
    ]
    heatmaps.figure6(tmp_path / "6.png", rows, "two clips")
    height, width, _ = cv2.imread(str(tmp_path / "6.png")).shape
    assert width / (6 - len(missing)) == pytest.approx(2.1 * 110, abs=1)
    assert height > 400
    spotted = Spotted(1, 3, np.array([0.1, 0, 0.4, 1, 0.8], np.float32), 3.0)
    scores = {"anger": (0.7, 0.1), "fear": (0.3, 0.1)}
    for named in ("anger", None):
        file = tmp_path / f"{named}.png"
        heatmaps.clip_picture(file, rows[0], spotted, 7, "spotted", scores, "a clip", named)
        bars = cv2.imread(str(file))[-250:, -600:]
        assert bars.std() > 10
        orange = (abs(bars.astype(int) - (14, 127, 255)).max(-1) < 3).sum()  # blue, green, red
        assert (orange > 1000) == (named is not None)


@pytest.mark.parametrize("name", ["$a^$\0b\nc", "a\udcd6", 99 * "long "])
def test_any_name_is_drawn(tmp_path, name):
    """The tests make errors of warnings: also of one that no room is left for the pictures."""
    frame = np.zeros((32, 32, 3), np.uint8)
    row = heatmaps.HeatRow(frame, frame, np.ones((32, 32)), None, f"{name}\n{name}")
    spotted = Spotted(1, 3, np.array([0.1, 0, 0.4, 1, 0.8], np.float32), 3.0)
    heatmaps.figure6(tmp_path / "6.png", [row], name)
    scores = {name: (0.7, 0.1), "fear": (0.3, 0.1)}
    heatmaps.clip_picture(tmp_path / "clip.png", row, spotted, 0, "spotted", scores, name, name)
    found = [heatmaps.Candidate(1, 2, name, True, frame)]
    heatmaps.over_time(tmp_path / "time.png", [(np.arange(4), np.ones(4))], found, "seconds")
    assert len(list(tmp_path.iterdir())) == 3
