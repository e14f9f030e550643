"""Curves can be read: they show where nothing is learned, and a single epoch is seen.

A picture is written whole or not at all.
"""

import errno

import numpy as np
import pytest

from ma2mi_jax.evaluation import drawing


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr(drawing, "save", lambda figure, path: figures.append(figure))
    yield figures
    for figure in figures:
        drawing.plt.close(figure)


def levels(axis):
    """The dashed lines, by what they are called."""
    dashed = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
    return {line.get_label(): line.get_ydata()[0] for line in dashed}


@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_reconstruction_is_drawn_as_a_share_of_the_copy(seen, tmp_path, count):
    rec, copy = np.random.default_rng(0).random((2, count)) + 0.5
    lines = [
        {"step": 10 * i, "loss_rec": r, "copy_baseline": c, "grad_norm": 1.0}
        for i, (r, c) in enumerate(zip(rec, copy, strict=True))
    ]
    drawing.pretraining_curves(tmp_path / "curves.png", lines)
    axis, other = seen[0].axes
    assert levels(axis) == {"1: the frame repeated": 1}
    assert levels(other) == {}
    first = next(line for line in axis.get_lines() if line.get_linestyle() != "--")
    np.testing.assert_allclose(first.get_ydata(), rec / copy)
    assert (first.get_marker() == ".") == (count < 300)


@pytest.mark.parametrize("epochs", [1, 80])
def test_a_fine_tuning_shows_what_a_guess_reaches(seen, tmp_path, epochs):
    values = np.random.default_rng(0).random((epochs, 6))
    drawing.finetuning_curves(tmp_path / "curves.png", values, values, values, [3, 6, 3])
    loss, *accuracies = seen[0].axes
    assert levels(loss) == {"ln 3: all classes alike": pytest.approx(np.log(3))}
    assert [levels(axis) for axis in accuracies] == [{"the most frequent class": 0.5}] * 2
    bold = [line for line in loss.get_lines() if line.get_label() == "mean over folds"]
    assert (bold[0].get_marker() == ".") == (epochs == 1)
    ticks = [tick for tick in loss.get_xticks() if loss.get_xlim()[0] <= tick <= loss.get_xlim()[1]]
    assert ticks == [round(tick) for tick in ticks]
    drawing.finetuning_curves(tmp_path / "curves.png", values, values, None, [3, 6, 3])
    assert len(seen[1].axes) == 2


def test_a_picture_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    path = tmp_path / "confusion.png"
    drawing.confusion(path, np.eye(2), ("a", "b"), "the older one")
    older = path.read_bytes()

    def cut_off(figure, file, **how):
        file.write_bytes(b"the first bytes")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drawing.plt.Figure, "savefig", cut_off)
    with pytest.raises(OSError, match="No space left") as refused:
        drawing.confusion(path, np.eye(2), ("a", "b"), "the newer one")
    assert refused.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]
    assert path.read_bytes() == older
