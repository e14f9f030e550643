"""Looks at what was learned: R² of linear maps, what F^p sees, L_rec beside its floors."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from networks import SMALLEST

from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.training import learned, pretraining

CONFIG = pretraining.Config(SMALLEST, steps=10, batch_size=16)
DRAWN = DatasetSpec("synthetic", "source")


@pytest.fixture(scope="module")
def state():
    return jax.jit(partial(pretraining.init, CONFIG))(jax.random.key(0))


def test_r2_is_what_a_linear_map_explains_of_people_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(400, 6)).astype(np.float32)
    noise = rng.normal(size=400)
    truth = np.stack(
        [seen[:, 0] + 2 * seen[:, 3], seen[:, 0] + noise, noise, np.zeros(400)], axis=1
    )
    exact, half, nothing, constant = learned.r2(seen, truth)
    assert exact == pytest.approx(1, abs=1e-3)
    assert half == pytest.approx(0.5, abs=0.08)
    assert nothing == pytest.approx(0, abs=0.05)
    assert np.isnan(constant)


def test_r2_of_more_features_than_people_stays_below_one():
    rng = np.random.default_rng(0)
    seen, truth = rng.normal(size=(60, 500)), rng.normal(size=(60, 2))
    assert np.all(learned.r2(seen, truth) < 0.3)
    seen[:, 7] = 0  # a dead feature is left out
    assert np.all(np.isfinite(learned.r2(seen, truth)))


def test_f_p_that_is_blind_to_the_face_is_told(state):
    frames = np.random.default_rng(0).integers(0, 255, (4, 2, 96, 96, 3), np.uint8)
    fresh = learned.monitors(CONFIG, state, frames)
    assert fresh["position_grey"] == 0  # before it learns anything, grey is 0 everywhere
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), state.params)
    sees = learned.monitors(CONFIG, state.replace(params=moved), frames)
    assert 0 < sees["position_grey"] < sees["position_mean"] < 0.999
    blind = jax.tree.map(np.asarray, moved)
    stem = blind["miacnet"]["position_encoder"]["conv1"]
    stem["kernel"] = np.zeros_like(stem["kernel"])
    blind = learned.monitors(CONFIG, state.replace(params=blind), frames)
    assert blind["position_grey"] == pytest.approx(1, abs=1e-4)
    assert blind["position_mean"] == pytest.approx(1, abs=1e-4)

    found = {"step": 7, "position_grey": float(blind["position_grey"])}
    assert "12 x 12 places" in learned.caution(CONFIG, found)
    assert not learned.caution(CONFIG, found | {"position_grey": 0.5})
    assert not learned.caution(dataclasses.replace(CONFIG, position_loss=False), found)
    assert not learned.caution(dataclasses.replace(CONFIG, objective="maer"), found)


def test_a_look_at_an_untrained_network(state):
    """A fresh DiT copies the frame, whatever C_Δ is; and what C_Δ tells lies in all places too."""
    people = learned.held_out(DRAWN, CONFIG, pairs=64)
    assert people.frames.shape == (64, 2, 96, 96, 3)
    assert people.truth.shape == (64, len(people.names))
    found = learned.look(CONFIG, state, None, people)
    assert found["step"] == 0
    assert found["loss_rec"] == pytest.approx(found["floors"]["copy"], rel=1e-4)
    assert found["loss_rec_other"] == pytest.approx(found["loss_rec"], rel=1e-6)
    assert found["floors"]["both"] < found["floors"]["head"] < found["floors"]["copy"]
    for key in ("r2_c_delta", "r2_places"):
        assert set(found[key]) == {"pose", "units", *people.names}
        known = [found[key][name] for name in people.names[: people.pose]]
        assert found[key]["pose"] == pytest.approx(np.nanmean(known))
        assert all(np.isnan(value) or value < 1 for value in found[key].values())


def test_other_sources_tell_what_f_p_sees_and_no_more(state):
    assert learned.held_out(DatasetSpec("folder", "source", root="/videos"), CONFIG) is None
    frames = np.random.default_rng(0).integers(0, 255, (4, 2, 96, 96, 3), np.uint8)
    found = learned.look(CONFIG, state, frames, None)
    assert set(found) == {"step", "c_delta_spread", "position_grey", "position_mean"}


def test_what_has_collapsed_is_told():
    fine = {"step": 4000, "c_delta_spread": 0.2, "position_mean": 0.9}
    lines = [{"loss_rec": 0.5, "copy_baseline": 1.0}, {"loss_rec": 0.7, "copy_baseline": 1.0}]
    assert learned.collapsed(fine, lines) == ""
    assert learned.collapsed(fine, [{"loss": 1.0}]) == ""  # MAER has no copy
    assert "C_Δ is the same" in learned.collapsed(fine | {"c_delta_spread": 1e-6}, lines)
    assert "F^p is the same" in learned.collapsed(fine | {"position_mean": 0.99999}, lines)
    copies = [{"loss_rec": 0.999, "copy_baseline": 1.0}]
    assert "L_rec is 0.999" in learned.collapsed(fine, copies)
    assert learned.collapsed(fine | {"step": 500}, copies) == ""
    nothing = {"step": 0, "c_delta_spread": 0.0, "position_mean": 1.0}
    assert learned.collapsed(nothing, copies) == ""  # before it has learned anything
