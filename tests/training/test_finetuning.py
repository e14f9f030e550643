"""A fold in the batch is the fold alone; what is frozen stays; the classifier starts at zero."""

import dataclasses
import operator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import weights

from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.training import finetuning, folds, pretraining
from ma2mi_jax.training.members import Member, predict_clips, train_members
from ma2mi_jax.training.members import start as start_members

CONFIG = finetuning.Config(Architecture(image_size=96, width=4), classes=3, epochs=2, batch_size=4)
SMALLER = dataclasses.replace(
    CONFIG, architecture=Architecture(image_size=96, width=4, blocks=(1, 1))
)
SUBJECTS = ["a"] * 3 + ["b"] * 6 + ["c"] * 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, size=(len(SUBJECTS), 2, 8, 8, 3))
    frames = np.kron(coarse, np.ones((1, 1, 12, 12, 1))).astype(np.uint8)
    return jax.device_put({"frames": frames, "label": np.arange(len(SUBJECTS), dtype=np.int32) % 3})


# Two folds of different length: 10 and 7 training clips.
MEMBERS = [Member(0, fold) for fold in folds.loso(SUBJECTS)[:2]]


def train(members, data, config=CONFIG):
    history = []
    start = weights.state_of(finetuning.init, config)
    states = start_members(config, members, (start.params, start.batch_stats))
    states = train_members(config, members, states, data, lambda *h: history.append(h[2]))
    return (
        states,
        predict_clips(config, states, data, [m.fold.test for m in members]),
        history,
    )


@pytest.fixture(scope="module")
def together(data):
    return train(MEMBERS, data)


@pytest.mark.parametrize("chosen", [[0], [1], [1, 0]])
def test_a_fold_among_others_is_bit_for_bit_the_fold_alone(together, data, chosen):
    states, tests, history = together
    alone, alone_tests, alone_history = train([MEMBERS[k] for k in chosen], data)
    for place, k in enumerate(chosen):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x: x[place], alone),  # noqa: B023
            jax.tree.map(lambda x: x[k], states),  # noqa: B023
        )
        np.testing.assert_array_equal(alone_tests[place], tests[k])
        assert [h["loss"][place] for h in alone_history] == [h["loss"][k] for h in history]


def test_members_take_the_steps_they_would_take_alone(together):
    states, _, _ = together
    assert states.step.tolist() == [2 * (10 // 4), 2 * (7 // 4)]


def test_probabilities_are_of_the_right_clips(together, data):
    states, tests, _ = together
    predict = jax.jit(partial(finetuning.predict, CONFIG))
    for k, (member, p) in enumerate(zip(MEMBERS, tests, strict=True)):
        state = jax.tree.map(operator.itemgetter(k), states)
        alone = [np.asarray(predict(state, data, np.array([clip])))[0] for clip in member.fold.test]
        np.testing.assert_allclose(p, alone, atol=1e-5)
        assert np.ptp(p, axis=0).max() > 1e-4  # clips differ, so another order would be seen


@pytest.mark.parametrize(
    ("tune", "frozen", "free"),
    [
        ("action", "position_encoder", "action_encoder"),
        ("position", "action_encoder", "position_encoder"),
    ],
)
def test_tuning_one_encoder_really_freezes_the_other(data, tune, frozen, free):
    config = dataclasses.replace(SMALLER, tune=tune)
    before = weights.state_of(finetuning.init, config)
    step = jax.jit(partial(finetuning.fold_step, config))
    after = before
    for _ in range(2):
        after, _ = step(after, data, np.arange(4), jax.random.key(1), 10, True)
    chex.assert_trees_all_equal(after.params["miacnet"][frozen], before.params["miacnet"][frozen])
    chex.assert_trees_all_equal(after.batch_stats[frozen], before.batch_stats[frozen])
    for now, then in (
        (after.params["miacnet"], before.params["miacnet"]),
        (after.batch_stats, before.batch_stats),
    ):
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), now[free], then[free])
        assert all(jax.tree.leaves(changed))


def test_a_frozen_encoder_may_take_the_statistics_of_the_batch(data):
    config = dataclasses.replace(SMALLER, tune="action", frozen_statistics="batch")
    before = weights.state_of(finetuning.init, config)
    step = jax.jit(partial(finetuning.fold_step, config))
    after, _ = step(before, data, np.arange(4), jax.random.key(1), 10, True)
    name = "position_encoder"
    chex.assert_trees_all_equal(after.params["miacnet"][name], before.params["miacnet"][name])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.batch_stats, before.batch_stats)
    assert all(jax.tree.leaves(moved[name]))


def test_test_clips_may_be_as_smooth_as_training_clips(data):
    pairs = data["frames"][:3]
    sharp = finetuning.tested_frames(CONFIG, pairs)
    np.testing.assert_array_equal(sharp, to_float(pairs))
    config = dataclasses.replace(CONFIG, test_frames="filtered")
    smooth = np.asarray(finetuning.tested_frames(config, pairs))
    beyond = np.pad(sharp, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), "symmetric")
    expected = (
        beyond[:, :, :-1, :-1]
        + beyond[:, :, 1:, :-1]
        + beyond[:, :, :-1, 1:]
        + beyond[:, :, 1:, 1:]
    ) / 4
    np.testing.assert_allclose(smooth, expected, atol=1e-4)


def test_an_inactive_step_changes_nothing(data):
    state = weights.state_of(finetuning.init, SMALLER)
    after, _ = jax.jit(partial(finetuning.fold_step, SMALLER))(
        state, data, np.arange(4), jax.random.key(1), 10, False
    )
    chex.assert_trees_all_equal(after, state)


def test_the_classifier_starts_at_zero_so_that_every_class_is_equally_likely(data):
    state = jax.jit(partial(finetuning.init, SMALLER))(jax.random.key(0))
    p = jax.jit(partial(finetuning.predict, SMALLER))(state, data, np.arange(5))
    np.testing.assert_allclose(p, 1 / 3, rtol=1e-6)


def test_augmentation_is_the_same_for_both_frames_and_differs_between_pairs():
    frames = np.random.default_rng(0).uniform(-1, 1, size=(6, 1, 32, 32, 3)).astype(np.float32)
    frames = np.concatenate([frames, frames], axis=1)
    found = finetuning.augment(CONFIG, jax.random.split(jax.random.key(0), 6), frames)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    same = finetuning.augment(
        CONFIG, jax.random.split(jax.random.key(0), 6), np.broadcast_to(frames[:1], frames.shape)
    )
    assert all(np.abs(same[i] - same[0]).max() > 0.1 for i in range(1, 6))


def test_a_crop_averages_no_pixels():
    config = dataclasses.replace(CONFIG, augmentation="crop")
    frames = np.random.default_rng(0).uniform(-1, 1, size=(6, 2, 32, 32, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 6)
    found = np.asarray(finetuning.augment(config, keys, frames))
    for pair, moved in zip(frames, found, strict=True):
        there = np.sort(pair[0, :, :, 0].ravel())
        nearest = there[np.searchsorted(there, moved[0, :, :, 0].ravel() - 1e-4).clip(0, 1023)]
        np.testing.assert_allclose(moved[0, :, :, 0].ravel(), nearest, atol=2e-4)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_batches_are_whole_shuffled_and_from_the_training_side():
    member = MEMBERS[0]
    first, second = member.batches(0, 4), member.batches(1, 4)
    assert first.shape == (2, 4)
    assert set(first.ravel()) <= set(member.fold.train.tolist())
    assert len(set(first.ravel())) == 8
    assert (first != second).any()
    np.testing.assert_array_equal(first, member.batches(0, 4))
    small = member.batches(0, 32)  # fewer clips than a batch: they repeat
    assert small.shape == (1, 32)
    assert set(small.ravel()) == set(member.fold.train.tolist())


def test_fine_tuning_learns_what_can_be_learned():
    """Two classes, told apart by where a bright spot appears between onset and apex."""
    rng = np.random.default_rng(0)
    label = np.arange(16, dtype=np.int32) % 2
    onset = np.kron(rng.uniform(80, 160, size=(16, 12, 12, 3)), np.ones((1, 8, 8, 1)))
    apex = onset.copy()
    for i, k in enumerate(label):
        apex[i, 16:32, 40:56] += 80 * k
        apex[i, 64:80, 40:56] += 80 * (1 - k)
    data = jax.device_put({"frames": np.stack([onset, apex], 1).astype(np.uint8), "label": label})
    config = dataclasses.replace(CONFIG, classes=2, epochs=40, batch_size=4, learning_rate=2e-3)
    subjects = [f"s{i // 4}" for i in range(16)]
    members = [Member(0, folds.loso(subjects)[0])]
    _, tests, history = train(members, data, config)
    assert history[-1]["loss"][0] < 0.3
    assert (tests[0].argmax(-1) == label[:4]).all()


KEPT = pretraining.Config(
    dataclasses.replace(
        SMALLER.architecture, depth=1, dit_width=32, heads=2, pixel_patch=16, space="pixel"
    )
)


def test_kept_reconstruction_adds_its_loss_and_reaches_dit_and_the_tuned_encoder(data):
    """Table 2: L_rec of onset → apex beside the cross-entropy, here at a quarter."""
    config = dataclasses.replace(
        SMALLER, reconstruction=KEPT, reconstruction_weight=0.25, tune="position"
    )
    start = jax.jit(partial(pretraining.init, KEPT))(jax.random.key(0))
    before = jax.jit(partial(finetuning.init, config))(
        jax.random.key(0), (start.params, start.batch_stats)
    )
    step = jax.jit(partial(finetuning.fold_step, config))
    after, metrics = step(before, data, np.arange(4), jax.random.key(1), 10, True)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(jax.random.key(1), 0), jnp.arange(4)
    )
    frames = finetuning.augment(config, keys, to_float(data["frames"][:4]))
    copy = jnp.abs(
        frames[:, 1] - frames[:, 0]
    ).mean()  # a fresh DiT repeats the onset; a zero classifier makes all classes equal
    assert float(metrics["loss"]) == pytest.approx(np.log(3) + float(copy) / 4, rel=1e-5)
    for _ in range(3):  # a zero classifier and a zero output pass nothing on at first
        after, _ = step(after, data, np.arange(4), jax.random.key(1), 10, True)

    def changed(now, then, name):
        found = jax.tree.map(lambda a, b: bool((a != b).any()), now[name], then[name])
        return any(jax.tree.leaves(found))

    networks = after.params["miacnet"], before.params["miacnet"]
    assert changed(*networks, "position_encoder")
    assert not changed(*networks, "action_encoder")
    assert changed(after.params, before.params, "dit")


def test_reconstruction_reaches_the_position_encoder_where_it_alone_is_tuned(data):
    config = dataclasses.replace(SMALLER, reconstruction=KEPT, tune="position")
    start = weights.state_of(pretraining.init, KEPT)
    init = partial(finetuning.init, pretrained=(start.params, start.batch_stats))
    state = weights.state_of(init, config)
    frames = to_float(data["frames"][:4])

    def loss(encoder):
        moved = {
            **state.params,
            "miacnet": {**state.params["miacnet"], "position_encoder": encoder},
        }
        _, c_delta, _ = finetuning._forward(config, moved, state.batch_stats, frames, train=True)
        return finetuning._reconstruction_loss(config, moved, None, frames, c_delta)

    grads = jax.jit(jax.grad(loss))(state.params["miacnet"]["position_encoder"])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 0


def test_keys_depend_on_seed_fold_and_purpose():
    fold0, fold1 = folds.loso(SUBJECTS)[:2]
    keys = [
        Member(s, f).key(p) for s in (0, 1) for f in (fold0, fold1) for p in ("init", "augment")
    ]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 8
    assert jnp.array_equal(
        jax.random.key_data(Member(1, fold1).key("init")), jax.random.key_data(keys[6])
    )
