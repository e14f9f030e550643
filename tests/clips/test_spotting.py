"""Onset and apex of drawn expressions are found to within a few frames, and the onset always comes
before the apex."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ma2mi_jax.clips.spotting import activity, candidates, spot
from ma2mi_jax.datasets.drawn.portrait import LAMP, UNITS, UPRIGHT, random_identity, render_frames

FRAMES, ONSET, APEX, OFFSET = 48, 10, 24, 44
NOISE = 2 / 255


def drawn(seed, units, amplitude, shake):
    """A clip (48, 96, 96, 3): at rest until ONSET, a smooth rise to APEX, at rest again from
    OFFSET on.

    The light flickers, there is noise, and the head shakes.
    """
    rng, time = np.random.default_rng(seed), np.arange(FRAMES)
    up, down = (
        np.clip((time - ONSET) / (APEX - ONSET), 0, 1),
        np.clip((time - APEX) / (OFFSET - APEX), 0, 1),
    )
    intensity = amplitude * sum(sign * t * t * (3 - 2 * t) for sign, t in ((1, up), (-1, down)))
    rows = np.zeros((FRAMES, len(UNITS), 2))
    rows[:, [UNITS.index(unit) for unit in units]] = intensity[:, None, None]
    pose = UPRIGHT._replace(x=shake * rng.normal(size=FRAMES), y=shake * rng.normal(size=FRAMES))
    light = LAMP._replace(gain=1 + rng.normal(0, 0.012, FRAMES))
    whole = [
        jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (FRAMES, *np.shape(leaf))[: np.ndim(leaf) + 1]),
            random_identity(rng),
        ),
        rows,
    ]
    whole += [
        type(each)(*(np.broadcast_to(leaf, FRAMES) for leaf in each)) for each in (pose, light)
    ]
    parts = (
        jax.tree.map(lambda leaf: np.asarray(leaf[i : i + 16], np.float32), whole)  # noqa: B023
        for i in range(0, FRAMES, 16)
    )
    images = np.concatenate([render_frames(*part, 96) for part in parts])
    return np.clip(255 * (images + NOISE * rng.standard_normal(images.shape)) + 0.5, 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize(("amplitude", "shake"), [(1.0, 0.002), (0.3, 0.0)], ids=["macro", "micro"])
@pytest.mark.parametrize("units", [(6, 12), (1, 2, 5, 26), (4, 9), (15, 17)], ids=str)
def test_onset_and_apex_of_a_drawn_expression(units, amplitude, shake):
    """The margin for the onset is wide: such a rise reaches RISE only 2.7 frames after its start,
    and a unit may show earlier or later than its intensity rises."""
    clip = drawn(1, units, amplitude, shake)
    found = spot(clip)
    assert abs(found.apex - APEX) <= 2
    assert -1 <= found.onset - ONSET <= 5
    assert found.contrast > 1.5
    np.testing.assert_allclose(found.curve[[found.onset, found.apex]], [0, 1], atol=1e-5)
    assert abs(found.curve[OFFSET:]).max() < 0.3  # back at rest


def test_a_lamp_is_no_motion_and_a_shift_of_the_head_hardly_any():
    """The expression is found, although first the lamp and then the head change the pixels more."""
    clip = drawn(2, (1, 2, 5, 26), 0.5, 0.0)
    change = abs(clip[APEX].astype(int) - clip[0]).mean()
    dimmed = clip.copy()
    dimmed[35:] = (0.7 * dimmed[35:]).astype(np.uint8)
    shifted = clip.copy()
    shifted[35:] = np.roll(shifted[35:], 1, axis=2)
    for other in (dimmed, shifted):
        assert abs(other[40].astype(int) - other[0]).mean() > change
        assert abs(spot(other).apex - APEX) <= 2


def test_what_is_given_is_kept():
    clip = drawn(3, (6, 12), 0.5, 0.0)
    free = spot(clip)
    assert spot(clip, onset=free.onset).apex == free.apex
    assert spot(clip, onset=8)[:2] == (8, free.apex)
    assert spot(clip, apex=free.apex).onset == free.onset
    early = spot(clip, apex=17)
    assert early.apex == 17
    assert early.onset < 17
    assert spot(clip, onset=3, apex=5)[:2] == (3, 5)


def test_a_still_clip_and_two_frames():
    face = drawn(4, (6,), 0.0, 0.0)
    still = spot(np.repeat(face[:1], 9, axis=0))
    assert (still.onset, still.apex, still.contrast) == (0, 1, 0.0)
    assert not still.curve.any()
    assert spot(face).contrast < 1.5  # noise alone
    pair = spot(face[[0, 20]])
    assert (pair.onset, pair.apex) == (0, 1)
    np.testing.assert_allclose(pair.curve, [0, 1], atol=1e-5)


CLIPS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(2, 40), st.integers(8, 40), st.integers(8, 40), st.just(3)),
    fill=st.integers(0, 255),
)


@settings(max_examples=60, deadline=None)
@given(CLIPS, st.data())
def test_any_clip_has_its_onset_before_its_apex(clip, data):
    last = len(clip) - 1
    onset = data.draw(st.none() | st.integers(0, last - 1))
    apex = data.draw(st.none() | st.integers((onset or 0) + 1, last))
    found = spot(clip, onset, apex)
    assert 0 <= found.onset < found.apex <= last
    assert onset in (None, found.onset)
    assert apex in (None, found.apex)
    assert found.curve.shape == (last + 1,)
    assert np.isfinite(found.curve).all()
    assert np.isfinite(found.contrast)
    assert found.curve[found.onset] == 0
    again = spot(clip, onset, apex)
    assert again[:2] == found[:2]


@pytest.mark.parametrize(
    "positions", [(3, 3), (-1, 3), (0, 9), (8, None), (None, 0), (5, 2), (None, -1)]
)
def test_impossible_positions_are_refused(positions):
    with pytest.raises(ValueError, match="expected 0 <= onset < apex <= 8"):
        spot(np.zeros((9, 16, 16, 3), np.uint8), *positions)


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="need two"):
        spot(np.zeros((1, 16, 16, 3), np.uint8))


def test_candidates_are_short_apart_and_in_order_of_strength():
    """Two expressions one after the other, the second twice as strong: each is a candidate."""
    weak, strong = drawn(1, (6, 12), 0.5, 0.0), drawn(1, (6, 12), 1.0, 0.0)
    clip = np.concatenate([weak, strong])
    found = candidates(clip, longest=34)
    assert [each.contrast for each in found] == sorted((c.contrast for c in found), reverse=True)
    for each in found:
        assert 0 < each.apex - each.onset <= 34
        assert each.curve.shape == (2 * FRAMES,)
    assert abs(found[0].apex - (FRAMES + APEX)) <= 2
    assert any(abs(each.apex - APEX) <= 2 for each in found[1:3])
    assert activity(clip, 34)[FRAMES + APEX] > 2 * np.median(activity(clip, 34))
    assert [each[:2] for each in candidates(strong, longest=60)] == [spot(strong)[:2]]
