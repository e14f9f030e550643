"""Every way that the benchmark times can be built and run: on the smallest preset, untimed."""

import functools
import itertools

import jax
import numpy as np
import pytest
from weights import WHY_TORCH

from benchmarks import __main__ as benchmark
from benchmarks import parts, reading, steps

pytest.importorskip("torch", reason=WHY_TORCH)
from benchmarks import torch_reading

SMALL = ["--presets=smoke", "--batch-sizes=2", "--torch-modes=eager"]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The rows of a part, whose ways run in this process; `found` is what came out at last."""
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "cache"))

    def compare(ways, repeats, warm_up=1):
        rows = []
        for way in ways:
            built = way.build(**way.arguments)
            built.run()
            found = jax.tree.map(np.asarray, built.run())
            rows.append(way.row | built.facts | {"seconds": 1.0, "found": found})
        return rows

    monkeypatch.setattr(parts, "compare", compare)

    def rows(part, *flags, groups=None):
        asked, _ = benchmark.asked([*SMALL, f"--out={tmp_path / 'out.json'}", *flags])
        found = parts.PARTS[part].measure(asked, {"float32": 1.0})
        return [row for group in itertools.islice(found, groups) for row in group]

    return rows


def check_losses(rows):
    for row in rows:
        losses = np.array(row["found"])
        assert np.isfinite(losses).all(), row
        assert losses.all(), row


def test_steps(measured):
    rows = measured("step", "--inputs=latents")
    assert [row["way"] for row in rows] == ["jax", "torch eager"]
    check_losses(rows)
    assert rows[0]["flops"] == rows[1]["mfu"] > 1e6


def test_steps_without_a_part(measured, monkeypatch):
    name = "without gradients and update"
    monkeypatch.setattr(steps, "ABLATIONS", {name: steps.ABLATIONS[name]})
    rows = measured("ablation", "--inputs=latents")
    assert [row["part"] for row in rows] == 2 * [steps.WHOLE] + 2 * [name]
    check_losses(rows)


def test_first_steps(measured):
    rows = measured("start", "--inputs=latents", "--frameworks=jax", groups=1)
    assert [row["cache"] for row in rows] == ["empty"]
    check_losses(rows)


def test_folds(measured):
    rows = measured("folds", "--forms=separate,unrolled,grouped", "--folds=1")
    assert [row["way"] for row in rows] == ["separate", "unrolled", "grouped", "torch eager"]
    check_losses(rows)
    for row in rows[1:3]:
        np.testing.assert_allclose(row["found"], rows[0]["found"], rtol=1e-4)


@pytest.fixture
def few(monkeypatch):
    """Few drawn clips, and turns of few batches."""
    monkeypatch.setattr(reading, "drawn", functools.partial(reading.drawn, clips=2))
    monkeypatch.setattr(reading, "BATCHES", 2)
    monkeypatch.setattr(torch_reading.os, "cpu_count", lambda: 1)


def test_steps_from_read_pairs(measured, few):
    rows = measured("waiting", "--inputs=latents")
    assert [row["frames"] for row in rows] == ["at hand", "prepared"]
    check_losses(rows)
    assert rows[0]["found"] != rows[1]["found"]  # of other frames


def test_reading(measured, few):
    rows = measured("reading")
    assert len(rows) == 4
    for row in rows:
        frames = row["found"]["frames"] if row["way"] == "ours" else row["found"]
        assert (frames.shape, frames.dtype) == ((2, 2, 64, 64, 3), np.uint8)
        assert np.ptp(frames) > 100
