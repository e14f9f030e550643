"""The stream of pairs.

Pixels tell where a frame comes from: red is the clip, green the position in it.
"""

import collections
import dataclasses
import itertools
import pickle
import re

import cv2
import drawn
import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import ArrayFrames, Box, ImageFolder, crop, read_frame
from ma2mi_jax.clips.pairs import (
    STAND_INS,
    check_pairs_on_disk,
    frames_within,
    future_pair,
    load_pairs,
    middle_pair,
    middle_pairs,
    pairs,
    pairs_nbytes,
    steps_per_epoch,
    to_device,
)
from ma2mi_jax.errors import UserError

SIZE = 8


def picture(clip: int, position: int) -> np.ndarray:
    return np.broadcast_to(np.array([clip, position, 77], np.uint8), (SIZE, SIZE, 3))


@pytest.fixture
def make_clips(tmp_path):
    """Clips as folders of PNG files: make_clips([number of frames, ...])."""

    def make(lengths, **fields):
        clips = []
        for i, length in enumerate(lengths):
            folder = tmp_path / f"{i:03d}"
            folder.mkdir()
            for position in range(length):
                cv2.imwrite(str(folder / f"{position}.png"), picture(i, position)[..., ::-1])
            names = tuple(f"{position}.png" for position in range(length))
            clips.append(Clip(f"clip {i}", ImageFolder(str(folder), names), label=i % 7, **fields))
        return clips

    return make


@pytest.fixture
def make_array_clips(tmp_path):
    """The same in one .npy file, quick to make in large numbers."""

    def make(lengths):
        np.save(
            tmp_path / "frames.npy",
            np.stack([picture(i, p) for i, length in enumerate(lengths) for p in range(length)]),
        )
        firsts = itertools.accumulate(lengths, initial=0)
        path = str(tmp_path / "frames.npy")
        spans = zip(firsts, lengths, strict=False)  # the last of `firsts` is the end
        return [
            Clip(f"clip {i}", ArrayFrames(path, first, length), label=i % 7)
            for i, (first, length) in enumerate(spans)
        ]

    return make


def spoil(clip: Clip, *positions: int):
    for position in positions:
        with open(f"{clip.frames.folder}/{clip.frames.names[position]}", "wb") as file:
            file.write(b"no image")


def take(stream, count: int) -> list[dict]:
    iterator = iter(stream)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_equal(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key], strict=True)


def column(batches, key) -> np.ndarray:
    return np.concatenate([batch[key] for batch in batches])


def columns(batches, *keys):
    return [column(batches, key) for key in keys]


def assert_shows_what_it_says(batches):
    frames, clip, position = columns(batches, "frames", "clip", "position")
    np.testing.assert_array_equal(
        frames[..., 0], np.broadcast_to(clip[:, None, None, None], frames.shape[:-1])
    )
    np.testing.assert_array_equal(
        frames[..., 1], np.broadcast_to(position[:, :, None, None], frames.shape[:-1])
    )
    np.testing.assert_array_equal(column(batches, "label"), clip % 7)
    assert (position[:, 0] < position[:, 1]).all()


def test_a_batch_shows_pairs_of_single_clips_in_order(make_clips):
    batches = take(pairs(make_clips([12] * 10), image_size=SIZE, batch_size=4, seed=0), 10)
    assert {key: (value.shape, value.dtype) for key, value in batches[0].items()} == {
        "frames": ((4, 2, SIZE, SIZE, 3), np.uint8),
        "clip": ((4,), np.int32),
        "drawn": ((4,), np.int32),
        "position": ((4, 2), np.int32),
        "label": ((4,), np.int32),
        "replaced": ((4,), np.bool_),
    }
    assert_shows_what_it_says(batches)
    np.testing.assert_array_equal(column(batches, "drawn"), column(batches, "clip"))
    assert not column(batches, "replaced").any()


def test_frames_are_cropped_and_resized_alike(make_clips, tmp_path):
    rng = np.random.default_rng(0)
    for position in range(2):
        cv2.imwrite(str(tmp_path / f"{position}.png"), rng.integers(0, 256, (40, 30, 3), np.uint8))
    clip = Clip("big", ImageFolder(str(tmp_path), ("0.png", "1.png")), box=Box(-3, 5, 20))
    (batch,) = take(pairs([clip], image_size=SIZE, batch_size=2, seed=0), 1)
    expected = [crop(read_frame(clip.frames, position), clip.box, SIZE) for position in range(2)]
    np.testing.assert_array_equal(batch["frames"][0], expected)


@given(
    frames=st.integers(2, 60),
    low=st.integers(1, 20),
    more=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
def test_delta_never_leaves_the_clip(frames, low, more, seed):
    t, future = future_pair(frames, np.random.default_rng(seed), delta=(low, low + more))
    assert 0 <= t < future < frames
    assert min(low, frames - 1) <= future - t <= low + more


def test_delta_and_t_are_uniform(make_array_clips):
    position = column(
        take(pairs(make_array_clips([10] * 60), image_size=SIZE, batch_size=60, seed=0), 100),
        "position",
    )
    delta = position[:, 1] - position[:, 0]
    assert set(delta) == set(range(3, 9))
    assert chisquare(np.bincount(delta)[3:]).pvalue > 0.001
    for d in range(3, 9):
        assert chisquare(np.bincount(position[delta == d, 0], minlength=10 - d)).pvalue > 0.001


def test_delta_is_clamped_in_short_clips(make_clips):
    batches = take(
        pairs(make_clips([2, 3, 4, 5]), delta=(4, 8), image_size=SIZE, batch_size=4, seed=0), 5
    )
    assert_shows_what_it_says(batches)
    for clip, position in zip(column(batches, "clip"), column(batches, "position"), strict=True):
        assert tuple(position) == (
            0,
            clip + 1,
        )  # the whole clip: of n frames no more than n - 1 ahead


@pytest.mark.parametrize(
    ("milliseconds", "fps", "frames"),
    [
        ((120, 320), 25, (3, 8)),
        ((120, 320), 30, (4, 9)),
        ((120, 320), 30000 / 1001, (4, 9)),
        ((120, 320), 200, (24, 64)),
        ((40, 40), 25, (1, 1)),
        ((10, 30), 25, None),
        ((120, 180), 5, None),
        ((120, 320), 0, None),
    ],
)
def test_delta_by_time_is_whole_numbers_of_frames(milliseconds, fps, frames):
    assert frames_within(milliseconds, fps) == frames


def test_clips_of_different_rates_show_the_same_time(make_array_clips):
    rates = [25, 50, 100, 200]
    clips = [
        dataclasses.replace(clip, fps=rate)
        for clip, rate in zip(make_array_clips([30, 50, 90, 170]), rates, strict=True)
    ]
    stream = {"image_size": SIZE, "batch_size": 4, "seed": 3, "delta_ms": (120, 320)}
    batches = take(pairs(clips, **stream), 200)
    clip, position = columns(batches, "clip", "position")
    time = 1000 * np.diff(position)[:, 0] / np.array(rates)[clip]
    for index, rate in enumerate(rates):
        seen = np.unique(time[clip == index])
        assert (seen.min() - 120) * rate < 5000, "five frames from the end of the range at most"
        assert (320 - seen.max()) * rate < 5000
        assert 120 <= seen.min() < seen.max() <= 320
    for batch, again in zip(batches, take(pairs(clips, **stream), 200), strict=True):
        assert_equal(batch, again)


def test_delta_by_time_needs_a_rate(make_array_clips):
    with pytest.raises(ValueError, match=r"without a δ of \(120, 320\) ms: clip 0"):
        pairs(make_array_clips([9, 9]), delta_ms=(120, 320), image_size=8, batch_size=2, seed=0)


def test_every_epoch_draws_other_clips_in_another_order_and_none_twice(make_array_clips):
    clips, batch_size = make_array_clips([4] * 23), 4
    steps = steps_per_epoch(len(clips), batch_size)
    assert steps == 5
    batches = take(pairs(clips, image_size=SIZE, batch_size=batch_size, seed=0), 12 * steps)
    epochs = column(batches, "clip").reshape(12, steps * batch_size)
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 12
    left_over = [frozenset(range(23)) - set(epoch) for epoch in epochs]
    assert len(set(left_over)) > 6
    positions = column(batches, "position").reshape(12, 20, 2)
    of_clip_0 = {
        tuple(p) for epoch, where in zip(positions, epochs == 0, strict=True) for p in epoch[where]
    }
    assert len(of_clip_0) == 1  # δ is clamped to 3 in clips of 4 frames, so there is but one pair


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_fewer_clips_than_a_batch_takes_repeat_but_not_as_neighbours(make_clips, count):
    batches = take(pairs(make_clips([5] * count), image_size=SIZE, batch_size=6, seed=1), 20)
    assert steps_per_epoch(count, 6) == 1
    shown = column(batches, "clip")
    if count > 1:
        assert (shown[0::2] != shown[1::2]).all()
    assert set(shown) == set(range(count))
    assert (
        len({tuple(p) for p in column(batches, "position")[shown == 0]}) > 1
    )  # a pair is drawn anew each time


def test_the_seed_alone_decides(make_clips):
    clips = make_clips([12] * 8)
    first, again, other = (
        take(pairs(clips, image_size=SIZE, batch_size=4, seed=seed), 4) for seed in (5, 5, 6)
    )
    for batch, same in zip(first, again, strict=True):
        assert_equal(batch, same)
    assert (column(first, "clip") != column(other, "clip")).any()
    assert (column(first, "position") != column(other, "position")).any()


def test_workers_change_nothing_and_may_change_on_resuming(make_clips):
    clips = make_clips([12] * 10)

    def stream(workers):
        return pairs(clips, image_size=SIZE, batch_size=4, seed=7, workers=workers)

    expected = take(stream(0), 9)
    iterators = [iter(stream(workers)) for workers in (0, 1, 2)]
    for iterator in iterators:
        for batch in expected[:5]:
            assert_equal(next(iterator), batch)
        assert iterator.get_state() == iterators[0].get_state()

    iterators[1].set_state(iterators[2].get_state())
    for iterator in iterators[1:]:
        for batch in expected[5:]:
            assert_equal(next(iterator), batch)
    for iterator in iterators:
        iterator.close()


@pytest.mark.parametrize("on_device", [False, True])
def test_resumes_with_the_very_next_batch(make_clips, on_device):
    stream = pairs(make_clips([12] * 10), image_size=SIZE, batch_size=8, seed=0)
    if on_device:
        mesh = jax.sharding.Mesh(jax.devices(), ("data",))
        stream = to_device(
            stream, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        )
    expected = take(stream, 9)
    iterator, fresh = iter(stream), iter(stream)
    for step in range(4):
        assert_equal(next(iterator), expected[step])
    state = iterator.get_state()
    assert_equal(next(iterator), expected[4])
    for resumed in (fresh, iterator):  # in another process, and by going back
        resumed.set_state(state)
        for step in range(4, 9):
            assert_equal(next(resumed), expected[step])
        resumed.close()
    if on_device:
        assert isinstance(expected[0]["frames"], jax.Array)
        assert len(expected[0]["frames"].sharding.device_set) == jax.device_count()


def test_orbax_restores_the_very_next_batch(make_clips, tmp_path):
    stream = to_device(
        pairs(make_clips([12] * 10), image_size=SIZE, batch_size=4, seed=0), jax.devices()[0]
    )
    expected = take(stream, 6)
    iterator = iter(stream)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        for _ in range(3):
            next(iterator)
        manager.save(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        assert_equal(next(iterator), expected[3])
        iterator.close()
    fresh = iter(stream)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.restore(3, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    for step in range(3, 6):
        assert_equal(next(fresh), expected[step])
    fresh.close()


def test_a_closed_stream_says_so(make_clips):
    iterator = iter(pairs(make_clips([4, 4]), image_size=SIZE, batch_size=2, seed=0))
    next(iterator)
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_the_nearest_frame_replaces_an_unreadable_one(make_clips, make_array_clips):
    clips = make_clips([12] * 4)
    bad = {0: {0, 1, 2}, 1: {11}, 2: set(range(2, 12))}
    for clip, positions in bad.items():
        spoil(clips[clip], *positions)
    good = take(pairs(make_array_clips([12] * 4), image_size=SIZE, batch_size=4, seed=0), 60)
    batches = take(pairs(clips, image_size=SIZE, batch_size=4, seed=0), 60)
    assert_shows_what_it_says(batches)
    np.testing.assert_array_equal(column(batches, "clip"), column(good, "clip"))
    seen = collections.Counter()
    for clip, wanted, shown, replaced in zip(
        *columns(good, "clip", "position"), *columns(batches, "position", "replaced"), strict=True
    ):
        broken = bad.get(int(clip), set())
        assert replaced == bool(broken & set(wanted.tolist()))
        if not replaced:
            np.testing.assert_array_equal(shown, wanted)
            continue
        seen[int(clip)] += 1
        if clip == 0:
            assert tuple(shown) == (
                3,
                max(4, wanted[1]),
            )  # δ >= 3, so that the future frame is readable, unless it is 3 itself
        if clip == 1:
            assert tuple(shown) == (wanted[0], 10)
        if clip == 2:
            assert tuple(shown) == (0, 1)
    assert set(seen) == {0, 1, 2}


@pytest.mark.parametrize("readable", [(), (6,)])
def test_the_next_clip_stands_in_for_one_without_two_readable_frames(make_clips, readable):
    clips = make_clips([12] * 6)
    for clip in (2, 5):
        spoil(clips[clip], *(set(range(12)) - set(readable)))
    batches = take(pairs(clips, image_size=SIZE, batch_size=6, seed=0), 10)
    assert_shows_what_it_says(batches)
    shown, drawn, replaced = columns(batches, "clip", "drawn", "replaced")
    assert collections.Counter(drawn.tolist()) == dict.fromkeys(range(6), 10)
    np.testing.assert_array_equal(replaced, np.isin(drawn, (2, 5)))
    np.testing.assert_array_equal(shown, np.array([0, 1, 3, 3, 4, 0])[drawn])


@pytest.mark.parametrize(
    "bad",
    [
        cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(),
        drawn.png_that_claims(100_000, 100_000),
    ],
)
def test_an_image_outside_its_box_or_of_absurd_size_counts_as_unreadable(make_clips, bad):
    clips = make_clips([2, 4], box=Box(4, 4, 4))
    with open(f"{clips[1].frames.folder}/0.png", "wb") as file:
        file.write(bad)
    batches = take(pairs(clips, image_size=4, batch_size=2, seed=0), 4)
    assert_shows_what_it_says(batches)
    shown, position, replaced = columns(batches, "clip", "position", "replaced")
    np.testing.assert_array_equal(replaced, shown == 1)
    np.testing.assert_array_equal(position[shown == 1], [(1, 3)] * 4)


@pytest.mark.parametrize(("count", "workers"), [(20, 0), (20, 1), (3, 0)])
def test_a_lost_disk_ends_the_run_with_one_line(tmp_path, count, workers):
    clips = [
        Clip(f"clip {i}", ImageFolder(str(tmp_path / "gone"), ("0.png", "1.png")))
        for i in range(count)
    ]
    with pytest.raises(UserError) as error:
        take(pairs(clips, image_size=SIZE, batch_size=2, seed=0, workers=workers), 1)
    line = (
        rf"{min(STAND_INS, count)} clips in a row cannot be read"
        r".*clip \d+.*gone.*check that the disk is there"
    )
    assert re.fullmatch(
        line, str(error.value)
    )  # str: grain attaches a note of its own, which `match` would see


def test_middle_pairs_are_first_and_middle_frames_of_labelled_clips(make_clips):
    clips = make_clips([2, 3, 8, 9, 12, 5])
    clips[4] = Clip("unlabelled", clips[4].frames)
    spoil(clips[3], *range(9))  # the next one, clip 4, has no label and cannot stand in
    batches = take(middle_pairs(clips, image_size=SIZE, batch_size=4, seed=0), 20)
    assert_shows_what_it_says(batches)
    shown, drawn, position = columns(batches, "clip", "drawn", "position")
    assert set(shown) == {0, 1, 2, 5}
    assert set(drawn) == {0, 1, 2, 3, 5}
    np.testing.assert_array_equal(shown[drawn == 3], 5)
    middle = np.array([1, 1, 4, 4, 6, 2])
    np.testing.assert_array_equal(position, np.stack([np.zeros_like(shown), middle[shown]], 1))


@given(st.integers(2, 1000))
def test_the_middle_frame_is_not_the_first(frames):
    first, middle = middle_pair(frames, np.random.default_rng(0))
    assert first == 0
    assert 0 < middle < frames


@pytest.mark.parametrize(
    ("clips", "batch_size", "steps"),
    [(64, 32, 2), (63, 32, 1), (32, 32, 1), (5, 32, 1), (16372, 32, 511)],
)
def test_steps_per_epoch(clips, batch_size, steps):
    assert steps_per_epoch(clips, batch_size) == steps


@pytest.mark.parametrize("batch_size", [0, -2, 1, 7])
def test_an_odd_batch_is_refused(make_clips, batch_size):
    with pytest.raises(UserError, match=f"^batch_size={batch_size}: expected an even number"):
        pairs(make_clips([4] * 8), image_size=SIZE, batch_size=batch_size, seed=0)


@pytest.mark.parametrize("delta", [(0, 3), (-1, 3), (5, 4)])
def test_a_senseless_delta_is_refused(make_clips, delta):
    with pytest.raises(UserError, match=f"^delta={delta[0]}:{delta[1]}: expected"):
        pairs(make_clips([4] * 8), delta=delta, image_size=SIZE, batch_size=2, seed=0)


def test_clips_that_readers_should_have_set_aside_are_refused(make_clips):
    clips = make_clips([4, 1, 4])
    with pytest.raises(ValueError, match=r"fewer than two frames.*: clip 1$"):
        pairs(clips, image_size=SIZE, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="no clip"):
        pairs([], image_size=SIZE, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="no clip"):
        middle_pairs([Clip("unlabelled", clips[0].frames)], image_size=SIZE, batch_size=2, seed=0)


def test_what_a_worker_is_sent_is_small():
    names = tuple(f"{i}.jpg" for i in range(70))
    few, many = (
        len(
            pickle.dumps(
                [
                    Clip(
                        f"{i:05d}", ImageFolder(f"/data/{i:05d}", tuple("".join(n) for n in names))
                    )
                    for i in range(count)
                ]
            )
        )
        for count in (100, 1100)
    )
    assert many - few < 1000 * 400  # file names travel once; a clip adds references to them


def test_load_pairs_reads_onset_and_apex_of_every_clip(make_clips):
    clips = [
        Clip(c.id, c.frames, onset=i, apex=2 * i) for i, c in enumerate(make_clips([9] * 5))
    ]  # the first: onset = apex
    done = []
    frames, replaced = load_pairs(clips, SIZE, done.append)
    assert frames.shape == (5, 2, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, [[picture(i, i), picture(i, 2 * i)] for i in range(5)])
    assert replaced == []
    assert done == [1, 2, 3, 4, 5]


def test_load_pairs_replaces_unreadable_frames(make_clips):
    clips = make_clips([9] * 3, onset=2, apex=7)
    spoil(clips[0], 2)
    spoil(clips[2], 0, 1, 2, 3, 4, 6, 7, 8)
    frames, replaced = load_pairs(clips, SIZE)
    assert replaced == [0, 2]
    np.testing.assert_array_equal(frames[0], [picture(0, 1), picture(0, 7)])
    np.testing.assert_array_equal(frames[1], [picture(1, 2), picture(1, 7)])
    np.testing.assert_array_equal(frames[2], [picture(2, 5)] * 2)


@pytest.mark.parametrize(("bad", "shown"), [((2,), (1, 3)), ((1,), (0, 2)), ((0, 1), (2, 3))])
def test_onset_and_apex_do_not_become_one_frame_while_another_can_be_read(make_clips, bad, shown):
    clips = make_clips([6], onset=1, apex=2)
    spoil(clips[0], *bad)
    frames, replaced = load_pairs(clips, SIZE)
    np.testing.assert_array_equal(frames[0], [picture(0, position) for position in shown])
    assert replaced == [0]


def test_pairs_on_disk_are_those_in_memory(make_clips):
    clips = make_clips([9] * 5, onset=2, apex=7)
    spoil(clips[3], 7)
    frames, replaced = load_pairs(clips, SIZE)
    on_disk, replaced_on_disk = check_pairs_on_disk(clips, SIZE)
    assert replaced == replaced_on_disk == [3]
    assert pairs_nbytes(len(clips), SIZE) == frames.nbytes
    rows = [np.array([4, 0, 3]), np.array([1, 1, 2])]
    for batch, row in zip(on_disk.batches(rows), rows, strict=True):
        np.testing.assert_array_equal(batch, frames[row])


def test_load_pairs_names_the_clip_it_cannot_read(make_clips):
    clips = make_clips([3] * 3, onset=0, apex=2)
    spoil(clips[1], 0, 1, 2)
    with pytest.raises(
        UserError, match=r"^clip 1: no frame can be read \(.*0\.png.*; restore its files"
    ):
        load_pairs(clips, SIZE)


@pytest.mark.parametrize("where", [{"onset": -1, "apex": 2}, {"onset": 0, "apex": 3}])
def test_load_pairs_refuses_positions_outside_the_clip(make_clips, where):
    with pytest.raises(ValueError, match=r"outside the clip.*: clip 0, clip 1$"):
        load_pairs(make_clips([3] * 2, **where), SIZE)
