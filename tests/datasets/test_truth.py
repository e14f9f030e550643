"""What drawn faces know of themselves, and the floors of L_rec that follow from it."""

import functools

import numpy as np
import pytest

from ma2mi_jax.datasets.drawn import films, synthetic, truth
from ma2mi_jax.datasets.drawn.portrait import UNITS
from ma2mi_jax.errors import UserError
from ma2mi_jax.images import shrink

SIZE, PAIRS = 48, 14
SIGMA = 2 * films.NOISE  # of frames in [−1, 1]


def drawn(cache, **changes):
    return truth.held_out_pairs(str(cache), **{"pairs": PAIRS, "size": SIZE, "seed": 3} | changes)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("cache"))


def test_pairs_have_frames_changes_and_clean_images(known):
    assert (known.frames.shape, known.frames.dtype) == ((PAIRS, 2, SIZE, SIZE, 3), np.uint8)
    assert (known.units.shape, known.units.dtype) == ((PAIRS, len(UNITS)), np.float32)
    assert (known.pose.shape, known.pose.dtype) == ((PAIRS, len(truth.POSE)), np.float32)
    assert (known.units.std(0) > 0).all()
    assert (known.pose.std(0) > 0).all()
    for name in truth.KNOWN:
        image = known.image(name)
        assert (image.shape, image.dtype) == ((PAIRS, SIZE, SIZE, 3), np.float32)
        assert -1 <= image.min() < image.max() <= 1
        np.testing.assert_array_equal(image[2:5], known.image(name, slice(2, 5)))


@pytest.mark.parametrize(("moment", "name"), [(0, "still"), (1, "both")])
def test_frames_are_the_clean_images_with_the_noise_of_the_sensor(known, moment, name):
    grain = known.frames[:, moment] / 127.5 - 1 - known.image(name)
    grain = grain[np.abs(known.image(name)) < 0.9]  # where nothing is clipped
    assert abs(grain.mean()) < 0.02 * SIGMA
    assert grain.std() == pytest.approx(SIGMA, rel=0.05)


def moving(part):
    """A clip of `macro_script` in which all but `part` stands still."""

    def script(*args):
        clip = synthetic.macro_script(*args)
        still = {
            "units": np.repeat(clip.units[:1], len(clip.units), 0),
            "pose": type(clip.pose)(*(np.full_like(leaf, leaf[0]) for leaf in clip.pose)),
            "light": type(clip.light)(*(np.full_like(leaf, leaf[0]) for leaf in clip.light)),
        }
        return clip._replace(**{name: same for name, same in still.items() if name != part})

    return script


@pytest.mark.parametrize(
    ("part", "same_as_still", "same_as_both"),
    [("pose", "face", "head"), ("units", "head", "face")],
)
def test_what_stands_still_is_not_drawn_as_moved(
    part, same_as_still, same_as_both, tmp_path, monkeypatch
):
    monkeypatch.setattr(truth, "macro_script", moving(part))
    pairs = drawn(tmp_path)
    np.testing.assert_array_equal(pairs.image(same_as_still), pairs.image("still"))
    np.testing.assert_array_equal(pairs.image(same_as_both), pairs.image("both"))
    assert (np.abs(pairs.image("both") - pairs.image("still")).max((1, 2, 3)) > 0).all()
    changes = {"pose": pairs.pose, "units": pairs.units}
    assert (np.abs(changes.pop(part)).max(1) > 0).all()
    assert not np.concatenate(list(changes.values())).any()


def test_changes_are_those_of_the_clip_between_the_two_frames(tmp_path):
    delta = (4, 4)
    pairs = drawn(tmp_path, delta=delta, frames=5, speech=1.0)  # so frame 0 and frame 4
    names = list(synthetic.EMOTIONS)
    for index in range(PAIRS):
        stream = films.stream(films.HELD_OUT, index, 3)
        clip = synthetic.macro_script(stream, names[index % 7], 5, 1.0)
        np.testing.assert_allclose(
            pairs.units[index], (clip.units[4] - clip.units[0]).mean(-1), atol=1e-6
        )
        np.testing.assert_allclose(pairs.pose[index, 2], clip.pose.roll[4] - clip.pose.roll[0])


def test_pairs_are_drawn_once_and_do_the_same_at_another_size(known, tmp_path, monkeypatch):
    calls = []
    first = drawn(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4 * PAIRS, 4 * PAIRS)
    seen = len(calls)
    again = drawn(tmp_path, progress=lambda *call: calls.append(call))
    assert len(calls) == seen
    for other in (again, known):
        assert first.frames.tobytes() == other.frames.tobytes()
        assert first.clean.tobytes() == other.clean.tobytes()
    assert drawn(tmp_path, seed=4).frames.tobytes() != first.frames.tobytes()

    def black(scripts, size, progress):
        yield np.zeros((4 * len(scripts), size, size, 3), np.float32)

    monkeypatch.setattr(films, "drawings", black)  # what they do does not hang on the drawing
    small = drawn(tmp_path, size=24)
    np.testing.assert_array_equal(small.units, first.units)
    np.testing.assert_array_equal(small.pose, first.pose)


def by_hand():
    """One pair of 2 × 2 pixels, of which only the two upper ones change."""
    levels = {"still": 0.2, "head": 0.3, "face": 0.4, "both": 0.6}  # of 65535
    clean = np.zeros((1, 4, 2, 2, 3))
    clean += 0.2
    for row, level in enumerate(levels.values()):
        clean[:, row, 0] = level
    seen = np.zeros((1, 2, 2, 2, 3), np.uint8) + np.uint8(51)  # .2 of 255
    seen[:, 1, 0] = 153  # .6
    seen[:, 0, :, 0] += 51  # noise of the frame, in the left column
    seen[:, 1, :, 1] += 51  # of the future, in the right column
    nothing = np.zeros((1, 1), np.float32)
    return truth.Truth(seen, nothing, nothing, np.rint(65535 * clean).astype(np.uint16))


@pytest.mark.parametrize(
    ("norm", "side", "denoised", "expected"),
    [  # differences of the upper two pixels and of the lower two, in units of .4
        ("l1", 1, True, {"copy": (1, 3, 1, 1), "still": (2, 3, 0, 1), "both": (0, 1, 0, 1)}),
        ("l1", 1, True, {"head": (1.5, 2.5, 0, 1), "face": (1, 2, 0, 1)}),
        ("l1", 1, False, {"copy": (1, 3, 1, 1), "still": (1, 3, 1, 1), "both": (1, 1, 1, 1)}),
        ("l1", 1, False, {"head": (0.5, 2.5, 1, 1), "face": (0, 2, 1, 1)}),
        ("l2", 1, True, {"copy": (1, 9, 1, 1), "still": (4, 9, 0, 1), "both": (0, 1, 0, 1)}),
        ("l1", 2, True, {"copy": (1,), "still": (1.5,), "head": (1.25,), "both": (0.5,)}),
        ("l1", 2, False, {"copy": (1,), "head": (0.75,), "face": (0.5,), "both": (0,)}),
    ],
)
def test_floors_by_hand(norm, side, denoised, expected):
    found = truth.floors(
        by_hand(), norm, latent=functools.partial(shrink, times=side), denoised=denoised
    )
    unit = 0.4 if norm == "l1" else 0.16
    for name, differences in expected.items():
        assert found[name] == pytest.approx(unit * np.mean(differences), abs=1e-4), name


def test_floors_of_drawn_faces_are_in_order_and_end_at_the_noise(known):
    found = truth.floors(known)
    assert list(found) == ["copy", "still", "head", "face", "both"]
    assert found["copy"] > found["still"] > max(found["head"], found["face"])
    assert min(found["head"], found["face"]) > found["both"]
    noise = SIGMA * np.sqrt(2 / np.pi)  # the mean of |x| of a normal x
    assert found["both"] == pytest.approx(noise, rel=0.1)  # less where frames are clipped
    halved = truth.floors(known, latent=functools.partial(shrink, times=2))
    assert halved["both"] == pytest.approx(found["both"] / 2, rel=0.1)
    noisy = truth.floors(known, denoised=False)
    assert noisy["still"] == pytest.approx(noisy["copy"], rel=1e-4)
    assert noisy["both"] == pytest.approx(np.sqrt(2) * found["both"], rel=0.1)
    squared = truth.floors(known, "l2")
    assert squared["both"] == pytest.approx(SIGMA**2, rel=0.15)


def test_wrong_numbers_are_named(tmp_path):
    with pytest.raises(UserError, match="pairs=0: drawn faces need at least 1"):
        drawn(tmp_path, pairs=0)
