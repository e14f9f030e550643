"""The benchmark measures what it says: processes in turns, FLOPs, forms of folds, wrong flags."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import folds, latents, machine, measure, parts
from benchmarks.measure import Way
from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.autoencoder import TINY


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
