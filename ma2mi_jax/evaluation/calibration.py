"""Are 70 % right seven times of ten? One temperature for all probabilities of a run.

A network that has learned 80 clips by heart is too sure of itself. Its logits are divided by one
temperature T (Guo et al., 2017), so probabilities p become p^(1/T), made to sum to 1. This changes
no prediction. T is fitted on the predictions that folds made for subjects they had not seen.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar

from ma2mi_jax.evaluation.predictions import Predictions

BINS = 10  # of confidence, equally wide
LEAST, MOST = 1.0, 100.0  # no run is made surer than it is; 100 makes all classes equal
SMALLEST = 1e-7  # a probability of 0 in six digits is hardly 0


def cooled(p: Float[np.ndarray, "... C"], temperature: float) -> Float[np.ndarray, "... C"]:
    """Probabilities at a temperature: above 1 they are nearer to each other."""
    logits = np.log(np.maximum(p, SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fitted(p: Float[np.ndarray, "... N C"], labels: Int[np.ndarray, " N"]) -> float:
    """The temperature of the least mean cross-entropy, in [LEAST, MOST]."""

    def loss(log_t: float) -> float:
        chosen = np.take_along_axis(
            cooled(p, np.exp(log_t)), np.broadcast_to(labels, p.shape[:-1])[..., None], -1
        )
        return float(-np.log(np.maximum(chosen, SMALLEST)).mean())

    bounds = np.log((LEAST, MOST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def expected_error(p: Float[np.ndarray, "... N C"], labels: Int[np.ndarray, " N"]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over `BINS`."""
    confidence = p.max(-1).ravel()
    right = (p.argmax(-1) == labels).ravel()
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(places, confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def of(found: Predictions) -> dict[str, Any]:
    """The calibration of a run, from its held-out predictions.

    Returns:
      `temperature`: fitted on all of them.
      `ece`: the expected calibration error of the probabilities as they are.
      `ece_calibrated`: the same at temperatures that are fitted without the subject in question.
      `bins`: of both.
    """
    subjects = np.array([clip.subject for clip in found.clips])
    p = found.probabilities.astype(np.float64)
    cool = np.empty_like(p)
    for subject in np.unique(subjects):
        own = subjects == subject
        others = ~own if not own.all() else own
        cool[:, own] = cooled(p[:, own], fitted(p[:, others], found.labels[others]))
    return {
        "temperature": fitted(p, found.labels),
        "ece": expected_error(p, found.labels),
        "ece_calibrated": expected_error(cool, found.labels),
        "bins": BINS,
    }
