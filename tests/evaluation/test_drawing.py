"""Curves can be read: they show where nothing is learned, and a single epoch is seen.

A picture is written whole or not at all, whatever names are in it.
"""

import errno

import numpy as np
import pytest
from matplotlib.text import Text

from ma2mi_jax.evaluation import drawing

LONG = "casme2, loso, from ferv39k-paper-0-no-lpos-aaaaaa: N = 249, 3 seed(s)\naccuracy 0.7134"


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr(drawing, "save", lambda figure, path, *_: figures.append(figure))
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


def test_frames_that_are_all_alike_have_no_share_of_the_copy(seen, tmp_path):
    """The tests make an error of a division by zero."""
    lines = [{"step": i, "loss_rec": 0.5, "copy_baseline": copy} for i, copy in enumerate((0, 1))]
    drawing.pretraining_curves(tmp_path / "curves.png", lines)
    first = next(line for line in seen[0].axes[0].get_lines() if line.get_linestyle() != "--")
    np.testing.assert_array_equal(first.get_ydata(), [np.nan, 0.5])


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


@pytest.mark.parametrize(
    "name",
    ["cost $a^$", "a\0b\x1bc", "a\udcd6", 50 * "a\n", 999 * "x", "高兴 "],
)
def test_any_name_is_drawn(tmp_path, name):
    """The tests make errors of warnings: also of one that no room is left for the axes."""
    three = dict.fromkeys(("accuracy", "uf1", "uar"), (0.5, 0.4, 0.6))
    drawing.confusion(tmp_path / "confusion.png", np.eye(2), (name, "b"), name)
    rows = {name: {"n": 3, "accuracy": 0.5}, "b": {"n": 2, "accuracy": 1.0}}
    drawing.per_subject(tmp_path / "subjects.png", rows, name)
    drawing.compared(tmp_path / "compared.png", {name: three, "b": three}, {"b − a": three}, name)
    drawing.delta_ranges(tmp_path / "4.png", {name: {"accuracy": [0.4], "uf1": [0.3]}}, name)
    frames = np.zeros((1, 16, 16, 3))
    drawing.reconstructions(tmp_path / "5.png", frames, frames, frames, frames, [name], name)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.fixture
def written(monkeypatch):
    """The figures that were written, in the pixels in which their parts are measured after it."""
    figures, savefig = [], drawing.plt.Figure.savefig

    def kept(figure, *args, **how):
        savefig(figure, *args, **how | {"dpi": figure.dpi})
        figures.append(figure)

    monkeypatch.setattr(drawing.plt.Figure, "savefig", kept)
    return figures


def test_a_dollar_is_mathematics_in_our_own_titles_alone(tmp_path, written):
    frames = np.zeros((1, 16, 16, 3))
    drawing.reconstructions(tmp_path / "5.png", frames, frames, frames, frames, ["$a$"], "$b$")
    texts = written[0].findobj(lambda each: isinstance(each, Text) and "$" in each.get_text())
    parsed = {text.get_text(): text.get_parse_math() for text in texts}
    assert parsed.pop("$a$") is parsed.pop("$b$") is False
    assert list(parsed.values()) == [True] * 3


@pytest.mark.parametrize("title", [LONG, f"from {99 * 'x'}: N = 3", "short"])
def test_titles_lie_inside_their_figures(tmp_path, written, title):
    drawing.confusion(tmp_path / "confusion.png", np.eye(3), ("a", "b", "c"), title)
    drawing.per_subject(tmp_path / "subjects.png", {"s": {"n": 3, "accuracy": 0.5}}, title)
    for figure in written:
        box = figure.texts[0].get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert "".join(title.split()) in "".join(figure.texts[0].get_text().split())
        axes = figure.axes[0].get_window_extent()
        assert box.y0 > axes.y1
        assert axes.height > 150, "the title takes no room from the picture"


def test_a_long_name_keeps_both_ends():
    assert drawing.fitted("casme2-from-dfew-paper-0", 12, lines=1) == "casme…aper-0"
    assert drawing.fitted("one two three", 7) == "one two\nthree"
    assert all(len(line) <= 9 for line in drawing.fitted("ab cde " * 30, 9).split("\n"))
