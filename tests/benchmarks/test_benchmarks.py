"""The benchmark measures what it says: processes in turns, FLOPs, forms of folds, wrong flags."""

import contextlib
import functools
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import WHY_TORCH

from benchmarks import __main__ as benchmark
from benchmarks import folds, latents, machine, measure, parts, reading, steps
from benchmarks.measure import Way
from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.autoencoder import TINY
from ma2mi_jax.training import pretraining


def test_one_command_measures_writes_and_says_what_failed(tmp_path, monkeypatch, capsys):
    """A matrix product in place of the steps: in processes of their own, as all ways are."""
    product = {"size": 8, "dtype": "float32"}
    ways = [
        Way({"way": "good"}, machine.build_matmul, product),
        Way({"way": "bad"}, machine.build_matmul, product | {"dtype": "float5"}),
    ]
    monkeypatch.setattr(
        parts,
        "_ways",
        lambda asked, row, arguments: [
            Way(row | way.row, way.build, way.arguments) for way in ways
        ],
    )
    monkeypatch.setattr(
        machine,
        "matmul_rates",
        lambda *_: [{"framework": "jax", "precision": "float32", "flop_per_second": 2e12}],
    )
    out = tmp_path / "new" / "speed.json"
    benchmark.main(["--parts=step", "--batch-sizes=2", "--repeats=2", f"--out={out}"])
    written = files.read_json(out)
    assert written["machine"].keys() >= {"date", "device", "processor", "jax", "torch", "load"}
    good, bad = written["tables"]["step"]
    assert good["seconds"] >= good["fastest"] > 0
    assert good["first"] > 0
    assert good["peak_bytes"] > 1e6
    assert "seconds" not in bad
    said = capsys.readouterr().out
    assert "tiny, pixels, float32, 2, bad: " in said
    assert "float5" in bad["failed"]


def test_the_median_of_the_turns_after_the_warm_up_counts(monkeypatch):
    asked = []

    class Process:
        def __init__(self, name, seconds):
            self.name, self.seconds, self.known = name, iter(seconds), {"first": 9.0}

        def ask(self, what):
            asked.append((self.name, what))
            return {"peak_bytes": 5} if what == "peak" else {"seconds": next(self.seconds)}

    made = {"a": Process("a", [100, 3, 1, 2]), "b": Process("b", [100, 6, 6, 9])}
    monkeypatch.setattr(
        measure, "_process", lambda way: contextlib.nullcontext(made[way.row["way"]])
    )
    found = measure.compare([Way({"way": name}, None) for name in made], repeats=3)
    assert found == [
        {"way": "a", "first": 9.0, "seconds": 2, "fastest": 1, "peak_bytes": 5},
        {"way": "b", "first": 9.0, "seconds": 6, "fastest": 6, "peak_bytes": 5},
    ]
    turns = [name for name, what in asked if what == "run"]
    assert "".join(turns) == "abbaabba"


def test_a_way_that_fails_beside_others_is_measured_alone(monkeypatch, capsys):
    """As where a GPU's memory holds each of the ways, but not two large ones, and never a huge."""
    sizes, room, running = {"small": 2, "large": 5, "other": 4, "huge": 9}, 8, []

    class Process:
        def __init__(self, name):
            fits = sum(map(sizes.get, running)) <= room
            self.known = {"first": 9.0} if fits else {"failed": f"no room for {'+'.join(running)}"}

        def ask(self, what):
            return {"peak_bytes": 5} if what == "peak" else {"seconds": 1.0}

    @contextlib.contextmanager
    def process(way):
        running.append(way.row["way"])
        made = Process(way.row["way"])
        if "failed" in made.known:
            running.remove(way.row["way"])  # it has ended
        yield made
        running[:] = [name for name in running if name != way.row["way"]]

    monkeypatch.setattr(measure, "_process", process)
    small, large, other, huge = measure.compare([Way({"way": name}, None) for name in sizes], 1)
    timed = {"first": 9.0, "seconds": 1.0, "fastest": 1.0, "peak_bytes": 5}
    assert small == {"way": "small", **timed}
    assert large == {"way": "large", **timed}
    assert other == {"way": "other", **timed, "alone": "no room for small+large+other"}
    assert huge == {"way": "huge", "failed": "no room for huge"} | {
        "alone": "no room for small+large+huge"
    }
    parts.show(parts.PARTS["folds"].table, [small, large, other, huge])
    said = capsys.readouterr().out
    assert "measured alone, for beside the others it failed: other: no room for small" in said
    assert "not measured: huge: no room for huge" in said


def test_each_size_is_written_before_the_next_one_is_measured(tmp_path, monkeypatch):
    def measure_two(asked, rates):
        yield [{"way": "a"}, {"way": "b"}]
        raise KeyboardInterrupt

    part = parts.Part(measure_two, parts.PARTS["step"].table)
    monkeypatch.setitem(parts.PARTS, "step", part)
    monkeypatch.setattr(machine, "matmul_rates", lambda *_: [])
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(["--parts=step", f"--out={tmp_path / 'cut.json'}"])
    written = files.read_json(tmp_path / "cut.json")
    assert written["tables"] == {"matmul": [], "step": [{"way": "a"}, {"way": "b"}]}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """JAX says that it has one GPU; PyTorch is as it is here."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def test_an_accelerator_measures_most_parts_in_one_size(on_a_gpu, tmp_path):
    out = f"--out={tmp_path / 'x.json'}"
    asked, _ = benchmark.asked(["--frameworks=jax", out])
    assert len(list(asked.of("step").sizes())) == 3 * 3 * 2 * 4
    for part in ("ablation", "start", "waiting"):
        sizes = [row for row, _ in asked.of(part).sizes()]
        assert {(row["precision"], row["batch"]) for row in sizes} == {("bfloat16", 32)}, part
    assert {row["input"] for row, _ in asked.of("waiting").sizes()} == {"latents", "pixels"}
    assert asked.of("folds").batch_sizes == (16,)

    flags = ["--precisions=float32", "--batch-sizes=8", "--inputs=pixels", "--folds=3"]
    asked, _ = benchmark.asked(["--frameworks=jax", out, *flags])
    for part in parts.PARTS:
        made = asked.of(part)
        assert (made.precisions, made.batch_sizes, made.folds) == (("float32",), (8,), 3), part
        assert made.inputs == ("pixels",), part


def test_an_accelerator_trains_as_many_folds_at_once_as_finetune_py(on_a_gpu, monkeypatch):
    config = folds.config_of("paper", "bfloat16", 16)
    monkeypatch.setattr(folds.protocol, "chunk_size", lambda config, members: (7, ""))
    assert folds.at_once(config) == 7
    monkeypatch.setattr(folds.protocol, "chunk_size", lambda config, members: (members, ""))
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert folds.at_once(config) == 4  # 26 of them on 8 devices


def test_cudnn_attends_on_a_gpu_in_bfloat16_alone(on_a_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(
        parts,
        "compare",
        lambda ways, repeats: [way.row | {"asked": way.arguments.get("attention")} for way in ways],
    )
    flags = ["--frameworks=jax", "--presets=smoke", f"--out={tmp_path / 'x.json'}"]
    asked, _ = benchmark.asked(flags)

    def measured():
        return [row for group in parts.pretraining_steps(asked, {}) for row in group]

    assert {row["precision"] for row in measured() if row["asked"] == "cudnn"} == {"bfloat16"}
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert {row["asked"] for row in measured()} == {None}


def test_attention_of_another_implementation_is_the_same_attention(monkeypatch):
    config = steps.config_of("smoke", "latents", "float32", 2)
    state, batch = steps.start(config), steps.batch_of(config, "latents")
    asked, attend = [], jax.nn.dot_product_attention

    def attention(*qkv, implementation):
        asked.append(implementation)
        return attend(*qkv)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    step = functools.partial(pretraining.train_step, config)
    plain = jax.make_jaxpr(step)(state, batch)
    assert set(asked) == {None}
    asked.clear()
    changed = jax.make_jaxpr(steps.with_attribute(step, "attention", "cudnn"))(state, batch)
    assert set(asked) == {"cudnn"}
    assert len(changed.eqns) == len(plain.eqns)


def test_no_mfu_where_the_autoencoder_inside_has_another_rate(monkeypatch, tmp_path):
    monkeypatch.setattr(
        parts,
        "compare",
        lambda ways, repeats: [way.row | {"seconds": 1.0, "flops": 4.0} for way in ways],
    )
    flags = ["--inputs=autoencoder,latents", "--precisions=float32,bfloat16", "--frameworks=jax"]
    asked, _ = benchmark.asked([*flags, f"--out={tmp_path / 'x.json'}"])
    rates = {"float32": 8.0, "bfloat16": 16.0}
    rows = [row for group in parts.pretraining_steps(asked, rates) for row in group]
    assert {(row["input"], row["precision"]): row.get("mfu") for row in rows} == {
        ("autoencoder", "float32"): 0.5,
        ("autoencoder", "bfloat16"): None,
        ("latents", "float32"): 0.5,
        ("latents", "bfloat16"): 0.25,
    }


def test_the_share_that_waits_is_of_the_step_with_a_batch_at_hand(monkeypatch, tmp_path):
    asked, _ = benchmark.asked([f"--out={tmp_path / 'x.json'}"])
    clips = dict.fromkeys(reading.FORMS, ())
    monkeypatch.setattr(reading, "drawn", lambda size: contextlib.nullcontext(clips))
    for at_hand, expected in (
        ({"seconds": 3.0}, [0.0, 0.25, 0.0]),
        ({"failed": "no"}, [None, None, None]),
    ):
        timed = {"at hand": at_hand, "prepared": {"seconds": 4.0}, "JPEG files": {"seconds": 2.0}}
        monkeypatch.setattr(
            parts,
            "compare",
            lambda ways, repeats, timed=timed: [way.row | timed[way.row["frames"]] for way in ways],
        )
        (rows,) = parts.waiting(asked, {})
        assert [row.get("waiting") for row in rows] == expected


def test_batches_that_were_read_are_not_kept():
    class Batch:
        pass

    there = weakref.WeakSet()

    def stream():
        for _ in range(reading.BATCHES):
            batch = Batch()
            there.add(batch)
            assert len(there) <= 3
            yield batch

    assert isinstance(reading.last_of_turn(stream()), Batch)


def test_mfu_is_the_share_of_the_best_matrix_product():
    rates = parts.fastest(
        [
            {"precision": "float32", "flop_per_second": 10.0},
            {"precision": "float32", "flop_per_second": 40.0},
            {"precision": "bfloat16", "failed": "no"},
        ]
    )
    assert rates == {"float32": 40.0, "bfloat16": 0.0}
    assert parts._with_mfu({"seconds": 2.0}, 20.0, rates["float32"])["mfu"] == 0.25
    assert "mfu" not in parts._with_mfu({"seconds": 2.0}, 20.0, rates["bfloat16"])


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (7, 2, 3), (1, 2, 0)]
)
def test_im2col_is_the_convolution(size, stride, padding):
    x, kernel = (
        jax.random.normal(jax.random.key(k), shape)
        for k, shape in enumerate([(2, 9, 9, 3), (size, size, 3, 5)])
    )
    strides, padded = (stride, stride), ((padding, padding),) * 2
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, strides, padded, dimension_numbers=layout)
    np.testing.assert_allclose(folds.im2col(x, kernel, strides, padded), expected, atol=1e-4)


def test_convolutions_of_flax_become_im2col():
    network = nn.Conv(4, (3, 3), (2, 2), padding=1)
    x = jnp.ones((1, 8, 8, 3))
    variables = network.init(jax.random.key(0), x)
    plain, changed = network.apply, folds.with_im2col(network.apply)
    np.testing.assert_allclose(changed(variables, x), plain(variables, x), atol=1e-5)
    assert "conv_general_dilated" in str(jax.make_jaxpr(plain)(variables, x))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(changed)(variables, x))


def test_the_whole_protocol_follows_from_a_step_of_some_folds():
    """26 folds of 249 pairs: 15 subjects have 10, so 14 steps of 16, and 11 have 9, so 15."""
    config = folds.config_of("tiny", "float32", 16)
    alone = folds.whole_protocol({"seconds": 4.0}, config, 4, together=False)
    assert alone["protocol_seconds"] == 80 * (15 * 14 + 11 * 15) * 1.0
    together = folds.whole_protocol({"seconds": 4.0}, config, 26, together=True)
    assert together["protocol_seconds"] == 80 * 15 * 4.0
    assert folds.whole_protocol({"failed": "no"}, config, 4, True) == {"failed": "no"}


def test_an_accelerator_fills_up_the_short_chunks_of_a_protocol(on_a_gpu):
    """26 folds are chunks of 7, 7, 6 and 6, and the last two have as many steps as 7 folds."""
    config = folds.config_of("tiny", "float32", 16)
    found = folds.whole_protocol({"seconds": 7.0}, config, 7, together=True)
    assert found["protocol_seconds"] == 80 * (14 + 14 + 15 + 15) * 7.0


def test_the_error_of_a_precision_is_a_share_of_what_motion_changes():
    built = latents.build(TINY, "bfloat16", size=32, frames=1)
    assert built.run().shape == (1, 4, 4, 4)
    assert 1e-3 < built.facts["error"] < 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--parts=speed", "expected one or more of step"),
        ("--batch-sizes=3", "3"),
        ("--presets=huge", "tiny"),
        ("--repeats=0", "integer >= 1"),
        ("--devices=9", "expected one or more of 1"),
    ],
)
def test_a_wrong_flag_ends_early(flag, message):
    with pytest.raises(UserError, match=message):
        benchmark.asked([flag])


def test_without_pytorch_it_is_not_compared_with(monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    assert benchmark.frameworks(None, on_cpu=True) == ("jax",)
    with pytest.raises(UserError, match="PyTorch is absent"):
        benchmark.frameworks(["torch"], on_cpu=True)


def test_a_pytorch_that_cannot_use_the_gpu_is_left_out_unless_it_is_asked_for(monkeypatch, capsys):
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.frameworks(None, on_cpu=False) == ("jax",)
    assert "this PyTorch has no CUDA, so there is nothing to compare" in capsys.readouterr().err
    assert benchmark.frameworks(["jax"], on_cpu=False) == ("jax",)
    for wanted in (["torch"], ["jax", "torch"]):
        with pytest.raises(UserError, match=r"frameworks=torch.*no CUDA; install"):
            benchmark.frameworks(wanted, on_cpu=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert benchmark.frameworks(None, on_cpu=False) == ("jax", "torch")
