"""The pre-training step: who learns from what; gradients do not depend on the number of devices."""

import dataclasses
import operator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import weights
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from networks import SMALLEST

from ma2mi_jax.clips.clip import Clip, Dataset, fingerprint, mislabelled
from ma2mi_jax.clips.frames import Box, ImageFolder
from ma2mi_jax.datasets.drawn.synthetic import macro_source
from ma2mi_jax.errors import UserError
from ma2mi_jax.models import autoencoder
from ma2mi_jax.training import pretraining, pretraining_run

DEEPER = dataclasses.replace(SMALLEST, blocks=(1, 1, 1, 1))  # where something is to be learned
CONFIG = pretraining.Config(SMALLEST, steps=10, batch_size=16)


def batch_of(size=16, seed=0):
    """Smooth random pairs: noise would drown the action encoder."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, size=(size, 2, 8, 8, 3))
    return {
        "frames": np.kron(coarse, np.ones((1, 1, 12, 12, 1))).astype(np.uint8),
        "label": np.arange(size, dtype=np.int32) % 7,
    }


def start(config):
    return jax.jit(partial(pretraining.init, config))(jax.random.key(0))


def started(config):
    """A state with random weights everywhere."""
    return weights.state_of(pretraining.init, config).replace(first_bad_step=jnp.int32(-1))


@pytest.fixture(scope="module")
def state():
    """A state in which nothing is zero-initialised any more, so that every gradient can flow."""
    return started(CONFIG)


@pytest.fixture(scope="module")
def step():
    """The step of CONFIG, compiled once."""

    @chex.assert_max_traces(n=1)
    def traced(state, batch):
        return pretraining.train_step(CONFIG, state, batch)

    return jax.jit(traced, donate_argnums=0)


@pytest.fixture(scope="module")
def gradients():
    """The gradients of CONFIG, compiled once."""
    return jax.jit(partial(pretraining.gradients, CONFIG))


def norms(config, state, only=None):
    """Gradient norm that E_a, E_p and DiT get, from the whole loss or from one of its parts."""

    def loss(params):
        value, (_, metrics, _) = pretraining.ma2mi_loss(
            config, params, state.batch_stats, batch_of(), jax.random.split(jax.random.key(0), 16)
        )
        return value if only is None else sum(metrics[k] for k in only)

    grads = jax.jit(jax.grad(loss))(state.params)

    def norm(tree):
        return float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(tree))))

    return (
        norm(grads["miacnet"]["action_encoder"]),
        norm(grads["miacnet"]["position_encoder"]),
        norm(grads["dit"]),
    )


def test_branches_learn_independently(state):
    action, position, dit = norms(CONFIG, state, ["loss_rec"])
    assert action > 0
    assert dit > 0
    assert position == 0
    action, position, dit = norms(CONFIG, state, ["loss_l1", "loss_l2", "loss_l3"])
    assert action == 0
    assert dit == 0
    assert position > 0


def test_without_position_loss_both_encoders_learn_from_reconstruction(state):
    action, position, dit = norms(dataclasses.replace(CONFIG, position_loss=False), state)
    assert min(action, position, dit) > 0


def test_loss_is_the_sum_of_equation_10_and_reconstruction_is_equation_9(state):
    loss, (_, metrics, predicted) = jax.jit(partial(pretraining.ma2mi_loss, CONFIG))(
        state.params, state.batch_stats, batch_of(), jax.random.split(jax.random.key(0), 16)
    )
    assert float(loss) == pytest.approx(
        sum(float(metrics[k]) for k in ("loss_rec", "loss_l1", "loss_l2", "loss_l3")), rel=1e-6
    )
    frames = batch_of()["frames"].astype(np.float64) / 127.5 - 1
    assert float(metrics["loss_rec"]) == pytest.approx(
        np.abs(np.asarray(predicted) - frames[:, 1]).mean(), rel=1e-5
    )
    assert float(metrics["copy_baseline"]) == pytest.approx(
        np.abs(frames[:, 0] - frames[:, 1]).mean(), rel=1e-5
    )


def test_squared_reconstruction_of_frames_that_are_averaged():
    config = dataclasses.replace(
        CONFIG,
        architecture=dataclasses.replace(SMALLEST, pixel_shrink=4),
        reconstruction_loss="l2",
        position_loss=False,
    )
    state = start(config)
    _, (_, metrics, predicted) = jax.jit(partial(pretraining.ma2mi_loss, config))(
        state.params, state.batch_stats, batch_of(), jax.random.split(jax.random.key(0), 16)
    )
    frames = batch_of()["frames"].astype(np.float64) / 127.5 - 1
    z, z_future = frames.reshape(16, 2, 24, 4, 24, 4, 3).mean((3, 5)).swapaxes(0, 1)
    np.testing.assert_allclose(predicted, z, atol=1e-5)  # a fresh DiT copies the frame
    expected = pytest.approx(((z - z_future) ** 2).mean(), rel=1e-5)
    assert float(metrics["loss_rec"]) == expected
    assert float(metrics["copy_baseline"]) == expected
    shown, copied = pretraining.reconstruct(config, state, batch_of()["frames"][:1])
    assert shown.shape == copied.shape == (1, 96, 96, 3)
    np.testing.assert_allclose(copied[0, ::4, ::4], z[0], atol=1e-5)


def test_jit_pmap_and_shard_map_give_the_same_gradients(state, gradients):
    batch = batch_of()
    devices = jax.devices()
    assert len(devices) == 8
    alone, (stats, metrics) = gradients(state, batch)

    mesh = Mesh(np.array(devices), ("data",))
    sharded_batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
    spread = jax.device_put(state, NamedSharding(mesh, P()))
    ways = {"jit": gradients(spread, sharded_batch)}

    per_device = partial(pretraining.gradients, CONFIG, axis_name="data")
    mapped = jax.shard_map(
        lambda s, b: per_device(s, b),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    ways["shard_map"] = jax.jit(mapped)(spread, sharded_batch)

    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)
    copies = jax.pmap(lambda s, b: per_device(s, b), axis_name="data", in_axes=(None, 0))(
        state, split
    )
    ways["pmap"] = jax.tree.map(lambda x: x[0], copies)
    for copy in range(8):
        own = jax.tree.map(operator.itemgetter(copy), copies)
        chex.assert_trees_all_close(own, ways["pmap"])

    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(alone))
    for way, (grads, (way_stats, way_metrics)) in ways.items():
        difference = max(
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(*map(jax.tree.leaves, (grads, alone)), strict=True)
        )
        assert difference < 1e-4 * scale, way
        chex.assert_trees_all_close(jax.device_get(way_stats), jax.device_get(stats), atol=1e-5)
        chex.assert_trees_all_close(jax.device_get(way_metrics), jax.device_get(metrics), rtol=1e-4)


def test_one_trace_serves_all_steps(state, step):
    current = jax.tree.map(jnp.copy, state)
    for seed in range(3):
        current, metrics = step(current, batch_of(seed=seed))
    assert int(current.step) == 3
    assert float(metrics["learning_rate"]) == pytest.approx(4e-4 * 0.01 ** (2 / 10), rel=1e-5)


def test_a_non_finite_loss_is_remembered_with_its_step(state, step):
    good, _ = step(jax.tree.map(jnp.copy, state), batch_of())
    assert int(good.first_bad_step) == -1
    poisoned = good.replace(params=jax.tree.map(lambda p: p * jnp.nan, good.params))
    after, _ = step(poisoned, batch_of())
    after, _ = step(after, batch_of())
    assert int(after.first_bad_step) == 1


def test_tau_differs_between_steps_and_samples_but_not_between_runs(state, gradients):
    first, again = gradients(state, batch_of()), gradients(state, batch_of())
    chex.assert_trees_all_equal(first, again)
    later = gradients(state.replace(step=state.step + 1), batch_of())
    assert float(later[1][1]["loss_l3"]) != float(first[1][1]["loss_l3"])


@pytest.mark.parametrize("fusion", ["action", "add", "concat", "regions"])
def test_each_fusion_trains(fusion):
    config = dataclasses.replace(
        CONFIG, architecture=dataclasses.replace(SMALLEST, fusion=fusion), batch_size=4
    )
    state = started(config)
    state, metrics = jax.jit(partial(pretraining.train_step, config))(state, batch_of(4))
    assert np.isfinite(float(metrics["loss"]))
    assert ("loss_l1" in metrics) == (fusion != "action")


def test_reconstruction_learns_a_repeated_batch():
    config = dataclasses.replace(
        CONFIG,
        architecture=dataclasses.replace(DEEPER, dit_width=32),
        steps=60,
        batch_size=4,
        learning_rate=3e-3,
    )
    state, batch = start(config), batch_of(4)
    step = jax.jit(partial(pretraining.train_step, config), donate_argnums=0)
    history = []
    for _ in range(60):
        state, metrics = step(state, batch)
        history.append(float(metrics["loss_rec"]))
    assert history[0] == pytest.approx(
        float(metrics["copy_baseline"]), rel=1e-5
    )  # zero-initialised: it starts as the copy
    assert history[-1] < 0.8 * history[0]


def test_maer_learns_a_repeated_batch():
    config = dataclasses.replace(
        CONFIG,
        architecture=DEEPER,
        objective="maer",
        classes=7,
        steps=40,
        batch_size=14,
        learning_rate=3e-3,
    )
    state, batch = start(config), batch_of(14)
    step = jax.jit(partial(pretraining.train_step, config), donate_argnums=0)
    for _ in range(40):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.5 * np.log(7)
    assert float(metrics["accuracy"]) > 0.8


def test_latents_are_the_posteriors_mean_or_a_sample_of_each_frames_own():
    vae = autoencoder.TINY
    params = jax.jit(autoencoder.init, static_argnums=1)(jax.random.key(0), vae)
    latent = dataclasses.replace(
        CONFIG, architecture=dataclasses.replace(SMALLEST, space="latent"), vae=vae
    )
    shapes = jax.eval_shape(partial(pretraining.init, latent), jax.random.key(0))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (shapes.params, shapes.batch_stats))
    batch = batch_of(4)
    batch["frames"][:, 1] = batch["frames"][:, 0]  # a pair without any change

    def copy_baseline(config):
        @jax.jit  # of the baseline alone: it needs no encoder, so none is compiled
        def baseline(params, batch, keys):
            _, (_, metrics, _) = pretraining.ma2mi_loss(config, *state, batch, keys, params)
            return metrics["copy_baseline"]

        keys = jax.random.split(jax.random.key(0), 4)
        return [float(baseline(params, batch, keys)) for _ in range(2)]

    assert copy_baseline(latent) == pytest.approx([0, 0], abs=1e-6)
    first, again = copy_baseline(dataclasses.replace(latent, latent="sample"))
    assert first == again > 0.05


def test_a_fingerprint_changes_with_what_is_known_of_a_clip():
    clip = Clip("a", (), subject="s", label=1, onset=0, apex=2)
    changes = [
        {"id": "b"},
        {"subject": "t"},
        {"label": 2},
        {"onset": 1},
        {"apex": 3},
        {"frames": ("x",)},
        {"box": Box(0, 0, 9)},
    ]
    found = [
        fingerprint([clip]),
        *(fingerprint([dataclasses.replace(clip, **change)]) for change in changes),
        fingerprint([clip, clip]),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint([clip]) == found[0]


def test_a_fingerprint_knows_which_faces_were_drawn_wherever_they_lie(tmp_path):
    def drawn(seed, folder="a"):
        return fingerprint(
            macro_source(str(tmp_path / folder), clips=2, frames=2, size=16, seed=seed).clips
        )

    assert drawn(0) == drawn(0, "b") != drawn(1)


def test_wrong_labels_are_as_many_as_asked_and_never_the_own():
    clips = [Clip(f"clip {i}", (), label=i % 7) for i in range(100)]
    changed = mislabelled(clips, 7, 0.3, seed=0)
    wrong = [
        (old.label, new.label)
        for old, new in zip(clips, changed, strict=True)
        if old.label != new.label
    ]
    assert len(wrong) == 30
    assert {new.label for new in changed} == set(range(7))
    assert len({(new - old) % 7 for old, new in wrong}) == 6  # to every other class alike
    assert [clip.id for clip in changed] == [clip.id for clip in clips]
    assert mislabelled(clips, 7, 0.3, seed=0) == changed != mislabelled(clips, 7, 0.3, seed=1)
    assert mislabelled(clips, 7, 0.0, seed=0) == tuple(clips)


def test_clips_that_cannot_show_a_time_are_set_aside_and_counted():
    def clip(id, frames, fps):
        return Clip(id, ImageFolder("", tuple(map(str, range(frames)))), fps=fps)

    good = [clip("a", 9, 25), clip("b", 4, 25.0), clip("c", 90, 30000 / 1001), clip("d", 90, 200)]
    bad = [clip("e", 90, 0), clip("f", 90, 0), clip("g", 3, 25), clip("h", 90, 2)]
    found = pretraining_run.of_known_time(Dataset("x", (*good, *bad)), (120, 320))
    assert found.clips == tuple(good)
    assert [each.id for each in found.set_aside] == ["e", "f", "g", "h"]
    (note,) = found.notes
    assert "2 clips set aside: frames per second unknown" in note
    assert "1 clips set aside: shorter than the shortest δ" in note
    ranges = {"3:8": 2, "4:9": 1, "24:64": 1}
    assert pretraining_run.deltas_of(found.clips, (120, 320)) == ranges

    untouched = Dataset("x", tuple(good))
    assert pretraining_run.of_known_time(untouched, (120, 320)) == untouched
    with pytest.raises(UserError, match=r"no clip is left .*unknown.*give delta, in frames"):
        pretraining_run.of_known_time(Dataset("x", tuple(bad[:2])), (120, 320))
