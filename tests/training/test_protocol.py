"""A protocol in chunks; which epoch counts.

It gives the same numbers interrupted, shared out over devices, and fed from device, host or disk.
"""

import dataclasses
import types

import chex
import jax
import numpy as np
import pytest
import weights
from compiled import EXACT
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.clips.pairs import PairsOnDisk
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.architecture import PRESETS, Architecture
from ma2mi_jax.runs import checkpoint
from ma2mi_jax.runs.listener import Listener
from ma2mi_jax.training import finetuning, folds, members, pretraining, protocol
from ma2mi_jax.training.members import Member, predict_clips

# With one encoder there is half as much to compile.
CONFIG = finetuning.Config(
    Architecture(image_size=64, width=4, fusion="action", blocks=(1, 1)),
    classes=3,
    epochs=3,
    batch_size=4,
)
SUBJECTS = ["a"] * 3 + ["b"] * 6 + ["c"] * 4
FOLDS = [folds.hold_out(fold, SUBJECTS, 0.2, seed=0) for fold in folds.loso(SUBJECTS)]
MEMBERS = [Member(0, fold) for fold in FOLDS]
PARTS = [MEMBERS]


class Stop(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def exact():
    """All is compiled as outside the tests, where one device and two agree in every bit."""
    step = members.step_members.__wrapped__
    predict = members.predict_members.__wrapped__
    with pytest.MonkeyPatch.context() as patch:
        steps = jax.jit(step, static_argnums=(0, 1), donate_argnums=2, **EXACT)
        patch.setattr(members, "step_members", steps)
        patch.setattr(members, "predict_members", jax.jit(predict, static_argnums=(0, 1), **EXACT))
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    frames = np.kron(
        rng.uniform(0, 255, size=(len(SUBJECTS), 2, 8, 8, 3)), np.ones((1, 1, 8, 8, 1))
    ).astype(np.uint8)
    return {"frames": frames, "label": np.arange(len(SUBJECTS), dtype=np.int32) % 3}


@pytest.fixture(scope="module")
def placed_data(data):
    """Where `load_data` puts it."""
    return members.placed(data, None)


def train(run, data, *, stop_after=None, pretrained=None, parts=PARTS, **options):
    """History and weights of all members; of several chunks, a list of these."""

    def on_epoch(chunk, epoch, history):
        if epoch == stop_after:
            raise Stop

    histories = protocol.train(
        CONFIG,
        parts,
        pretrained,
        data,
        run,
        on_epoch,
        select="inner",
        checkpoint_every=1,
        **options,
    )
    found = [
        (history, jax.device_get((states.params, states.batch_stats)))
        for history, states in zip(histories, protocol.saved(CONFIG, parts, run), strict=True)
    ]
    return found if len(found) > 1 else found[0]


@pytest.fixture(scope="module")
def whole(placed_data, tmp_path_factory):
    """Never interrupted, on one device, pairs on the device."""
    return train(tmp_path_factory.mktemp("whole"), placed_data)


def test_an_interrupted_protocol_goes_on_from_the_last_epoch_to_the_same_numbers(
    placed_data, whole, tmp_path
):
    with pytest.raises(Stop):
        train(tmp_path, placed_data, stop_after=1)
    assert (tmp_path / "checkpoints" / "unfinished-0").is_dir()
    epochs = []
    protocol.train(
        CONFIG,
        PARTS,
        None,
        placed_data,
        tmp_path,
        lambda *a: epochs.append(a[1]),
        select="inner",
        checkpoint_every=1,
    )
    assert epochs == [2]
    assert not (tmp_path / "checkpoints" / "unfinished-0").exists()
    protocol.train(
        CONFIG,
        PARTS,
        None,
        placed_data,
        tmp_path,
        lambda *a: epochs.append(a[1]),
        select="inner",
    )
    assert epochs == [2, 2]  # nothing is trained again, and the finished chunk is announced
    chex.assert_trees_all_equal(train(tmp_path, placed_data), whole)


@pytest.mark.parametrize("what", ["weights", "history"])
def test_a_finished_chunk_that_is_damaged_is_told_and_trained_again(
    placed_data, whole, tmp_path, what
):
    train(tmp_path, placed_data)
    files = (path for path in (tmp_path / "checkpoints" / "0").rglob("*") if path.is_file())
    damaged = max(files, key=lambda path: path.stat().st_size)
    if what == "history":
        damaged = tmp_path / "checkpoints" / "history-0.npz"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    if what == "weights":
        with pytest.raises(UserError, match="this checkpoint is damaged"):
            list(protocol.saved(CONFIG, PARTS, tmp_path))

    told = []
    chex.assert_trees_all_equal(train(tmp_path, placed_data, listener=Listener(told.append)), whole)
    assert len([line for line in told if "damaged" in line]) == 1


def test_a_short_chunk_is_filled_up_and_compiled_no_more_or_its_compilation_is_told(
    placed_data, whole, tmp_path
):
    steps, predictions = members.step_members, members.predict_members
    before = steps._cache_size(), predictions._cache_size()
    told, parts = [], [MEMBERS[:2], MEMBERS[2:]]
    listener = Listener(told.append)
    found = train(tmp_path / "filled", placed_data, parts=parts, fill=True, listener=listener)
    assert (steps._cache_size(), predictions._cache_size()) == (before[0] + 1, before[1] + 1)
    assert len([line for line in told if line.startswith("compiling")]) == 1

    told.clear()
    parts = [MEMBERS, MEMBERS[:2], MEMBERS]
    short = train(tmp_path / "short", placed_data, parts=parts, fill=False, listener=listener)
    assert len([line for line in told if line.startswith("compiling")]) == 2

    history, of_all = whole
    first, last, every = slice(0, 2), slice(2, 3), slice(0, 3)
    for chunk, part in zip(found + short, (first, last, every, first, every), strict=True):
        alone = history.tests[:, part, : chunk[0].tests.shape[2]]
        np.testing.assert_array_equal(chunk[0].tests, alone)
        np.testing.assert_array_equal(chunk[0].loss, history.loss[:, part])
        of_part = jax.tree.map(lambda x: x[part], of_all)  # noqa: B023
        chex.assert_trees_all_equal(chunk[1], of_part)


@pytest.fixture(scope="module")
def learned():
    """Weights of a run, on one device."""
    state = weights.state_of(finetuning.init, CONFIG, seed=5)
    return members.placed((state.params, state.batch_stats), None)


MESH = Mesh(np.array(jax.devices()[:2]), ("members",))  # three members: one goes along twice


def test_devices_share_the_members_and_pairs_may_stay_on_the_host(data, whole, tmp_path):
    chex.assert_trees_all_equal(train(tmp_path, data, mesh=MESH), whole)


def test_devices_share_members_that_start_from_a_run_and_are_interrupted(
    data, placed_data, learned, tmp_path
):
    """What a checkpoint gives lies on one device; it must get to all that train, be they two, or
    one, or two again."""
    alone = train(tmp_path / "one", placed_data, pretrained=learned)
    with pytest.raises(Stop):
        train(tmp_path / "two", data, pretrained=learned, mesh=MESH, stop_after=0)
    with pytest.raises(Stop):
        train(tmp_path / "two", placed_data, pretrained=learned, stop_after=1)
    shared = train(tmp_path / "two", data, pretrained=learned, mesh=MESH)
    chex.assert_trees_all_equal(shared, alone)


@pytest.mark.parametrize(
    ("on_host", "on_device", "kind", "note"),
    [
        (0.5, 0.3, jax.Array, ""),
        (0.5, 0.0, np.ndarray, "GB of pairs stay on the host"),
        (0.0, 0.3, PairsOnDisk, "GB of pairs stay on the disk"),
    ],
)
def test_where_the_pairs_lie_changes_no_number(
    data, whole, tmp_path, monkeypatch, on_host, on_device, kind, note
):
    np.save(tmp_path / "film.npy", data["frames"].reshape(-1, *data["frames"].shape[2:]))
    clips = [
        Clip(f"{i}", ArrayFrames(str(tmp_path / "film.npy"), 2 * i, 2), label=k, onset=0, apex=1)
        for i, k in enumerate(data["label"].tolist())
    ]
    monkeypatch.setattr(members, "ON_HOST", on_host)
    monkeypatch.setattr(members, "ON_DEVICE", on_device)
    monkeypatch.setattr(members, "_device_memory", lambda: 1e12)
    loaded, replaced, told = members.load_data(clips, CONFIG.architecture.image_size)
    assert isinstance(loaded["frames"], kind)
    assert replaced == []
    assert note in told
    chex.assert_trees_all_equal(train(tmp_path, loaded), whole)


def test_the_kept_weights_are_those_of_the_reported_epoch(data, whole):
    history, kept = whole
    epochs = protocol.reported(history, "inner")
    states = finetuning.MemberState(np.zeros(len(MEMBERS)), *kept, opt_state=None)
    found = predict_clips(CONFIG, states, data, [m.fold.test for m in MEMBERS])
    for k, (member, p) in enumerate(zip(MEMBERS, found, strict=True)):
        np.testing.assert_array_equal(p, history.tests[epochs[k], k, : len(member.fold.test)])


def test_the_reported_epoch_is_the_last_or_the_best_on_held_out_subjects():
    inner = np.array([[0.2, 0.5], [0.6, 0.5], [0.6, 0.1], [0.4, 0.5]])
    history = protocol.History(inner, inner, inner, inner)
    assert protocol.reported(history, "last").tolist() == [3, 3]
    assert protocol.reported(history, "inner").tolist() == [2, 3]
    assert protocol.reported(history, "inner", until=2).tolist() == [1, 1]


def test_chunks_keep_order_and_are_even():
    for count in range(1, 30):
        for size in (1, 3, 8, 40):
            parts = protocol.chunks(list(range(count)), size)
            assert [m for part in parts for m in part] == list(range(count))
            assert max(map(len, parts)) <= size
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_pool_puts_every_prediction_at_its_clip():
    parts = [MEMBERS[:2], MEMBERS[2:]]
    tests = [
        [m.fold.test[None, :, None].astype(float) for m in part] for part in parts
    ]  # (epochs 1, test clips, 1): the clip's own index
    pooled = protocol.pool(parts, tests, [0], len(SUBJECTS))
    np.testing.assert_array_equal(pooled[0, 0, :, 0], np.arange(len(SUBJECTS)))


def test_chunk_size_leaves_room_and_says_why(monkeypatch):
    size, why = protocol.chunk_size(CONFIG, 30)
    assert size == 30  # eight fake devices of four
    assert "8 devices" in why
    assert protocol.chunk_size(CONFIG, 3)[0] == 3
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    sizes = {count: protocol.chunk_size(CONFIG, count)[0] for count in (2, 5, 26, 27, 28, 30, 31)}
    assert sizes == {2: 2, 5: 5, 26: 3, 27: 3, 28: 4, 30: 5, 31: 4}  # with few chunks left over

    gpu = types.SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 18e9})
    monkeypatch.setattr(jax, "devices", lambda: [gpu])
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    paper = finetuning.Config(PRESETS["paper"], classes=5, dtype="bfloat16")
    kept = dataclasses.replace(paper, reconstruction=pretraining.Config(PRESETS["paper"]))
    size, why = protocol.chunk_size(paper, 30)
    assert 1 <= protocol.chunk_size(kept, 30)[0] < size <= 8
    assert "of 18 GB" in why
    assert protocol.chunk_size(dataclasses.replace(paper, dtype="float32"), 30)[0] <= size


def test_a_member_that_diverges_ends_the_run_by_its_name(placed_data, learned, tmp_path):
    endless = jax.tree.map(lambda x: np.inf * x, learned)
    with pytest.raises(
        UserError, match=r"fold a of seed 0: the loss of step 1, with clip .*not finite"
    ):
        train(tmp_path, placed_data, pretrained=endless)
    assert not list((tmp_path / "checkpoints" / "unfinished-0").iterdir())


def test_weights_are_read_onto_the_first_device_wherever_they_were_saved(tmp_path):
    spread = NamedSharding(Mesh(np.array(jax.devices()), ("members",)), PartitionSpec("members"))
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(
            checkpoints, 1, {"w": jax.device_put(np.arange(8.0, dtype=np.float32), spread)}
        )
    found = checkpoint.restore(tmp_path, 1, {"w": jax.ShapeDtypeStruct((8,), np.float32)})["w"]
    assert found.devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(found, np.arange(8))
