"""The temperature is found where it is known; the error is what one computes by hand."""

import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.evaluation import calibration
from ma2mi_jax.evaluation.predictions import Predictions

TRUE = 2.5  # the logits are this many times too large


def overconfident(count, seeds=1):
    """Probabilities (seeds, count, 3) that are too sure by TRUE; labels drawn by honest ones."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], count)
    labels = np.array([rng.choice(3, p=p) for p in honest])
    return np.tile(calibration.cooled(honest, 1 / TRUE), (seeds, 1, 1)), labels


def test_the_temperature_that_was_planted_is_found():
    p, labels = overconfident(4000)
    found = calibration.fitted(p, labels)
    assert found == pytest.approx(TRUE, rel=0.1)
    assert calibration.expected_error(p, labels) > 0.1
    assert calibration.expected_error(calibration.cooled(p, found), labels) < 0.04


def test_cooling_keeps_the_order_and_the_sum():
    p, _ = overconfident(50)
    p[0, 0] = 1, 0, 0
    cool = calibration.cooled(p, 3.0)
    np.testing.assert_allclose(cool.sum(-1), 1)
    np.testing.assert_array_equal(cool.argmax(-1), p.argmax(-1))
    assert cool.max() < p.max()
    np.testing.assert_allclose(calibration.cooled(cool, 1 / 3), p, atol=1e-5)


def test_the_expected_error_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.55, 0.45], [1.0, 0.0]])
    labels = np.array([0, 1, 0, 0])
    # .9 to 1: three clips of confidence 2.8, two of them right; .5 to .6: .55, and right.
    assert calibration.expected_error(p, labels) == pytest.approx((0.8 + 0.45) / 4)


def test_a_run_is_calibrated_by_other_subjects():
    p, labels = overconfident(300, seeds=2)
    clips = [Clip(str(i), (), subject=f"s{i % 10}", label=int(k)) for i, k in enumerate(labels)]
    found = calibration.of(Predictions(clips, ["f"] * 300, [0, 1], p))
    assert found["temperature"] == pytest.approx(TRUE, rel=0.3)
    assert found["ece_calibrated"] < found["ece"] / 2
