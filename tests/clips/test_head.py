"""The motion of a head is found where it is known, and an expression is none."""

import cv2
import jax
import numpy as np
import pytest

from ma2mi_jax.clips import head
from ma2mi_jax.datasets.drawn.portrait import LAMP, UNITS, UPRIGHT, random_identity, render_frames

SIZE = 128


def faces(**units):
    """One person at rest, and with the units `au12=1.0, ...`; (2, SIZE, SIZE, 3) uint8."""
    rows = np.zeros((2, len(UNITS), 2), np.float32)
    for name, intensity in units.items():
        rows[1, UNITS.index(int(name[2:]))] = intensity
    twice = jax.tree.map(
        lambda leaf: np.stack([leaf, leaf]).astype(np.float32),
        (random_identity(np.random.default_rng(0)), UPRIGHT, LAMP),
    )
    images = render_frames(twice[0], rows, twice[1], twice[2], SIZE)
    return np.clip(255 * np.asarray(images) + 0.5, 0, 255).astype(np.uint8)


def moved(image, x=0.0, y=0.0, zoom=0.0, turn=0.0):
    """The face moved right and down, in shares of the side, grown, and turned."""
    centre, side = (SIZE - 1) / 2, SIZE
    inverse = np.array([[1 + zoom, -turn], [turn, 1 + zoom]])
    shift = np.array([x, y]) * side + centre - inverse @ (centre, centre)
    matrix = np.column_stack([inverse, shift])
    return cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize(
    "true",
    [{"x": 0.01}, {"y": -0.06}, {"zoom": 0.05}, {"turn": -0.08}, {"x": 0.04, "zoom": -0.04}],
    ids=str,
)
def test_a_motion_that_is_known(true):
    face = faces()[0]
    found = head.motion(face, moved(face, **true))
    for name in ("x", "y", "zoom", "turn"):
        assert getattr(found, name) == pytest.approx(true.get(name, 0), abs=0.006)
    assert found.share > 0.8
    assert found.size == pytest.approx(head.Motion(**{**ZERO, **true}).size, rel=0.15)


ZERO = {"x": 0.0, "y": 0.0, "zoom": 0.0, "turn": 0.0, "share": 0.0}


def test_an_expression_is_no_motion_of_the_head():
    found = head.motion(*faces(au12=1.0, au26=1.0))
    assert found.share < 0.5
    assert found.size < 0.02


def test_equal_frames_do_not_move():
    face = faces()[0]
    assert head.motion(face, face) == head.Motion(**ZERO)
