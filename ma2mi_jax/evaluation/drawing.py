"""Pictures of numbers: ranges of δ (Fig. 4), reconstructions (Fig. 5), curves, confusion matrices
and subjects.

Names of classes, subjects, clips and runs are other people's text: `fitted` makes lines of them
that can be drawn, and `save` takes no `$` in them for mathematics.
"""

import pathlib
import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from ma2mi_jax import files


def amplified(change: np.ndarray, gain: float) -> np.ndarray:
    """A picture of a change of frames: grey where nothing changes.

    Args:
      change: (..., 3) in [−2, 2].
      gain: the amplification.

    Returns:
      (..., 3) in [0, 1].
    """
    return np.clip(0.5 + gain * change / 2, 0, 1)


def visible_gain(change: np.ndarray) -> float:
    """The amplification that gives the 99.5th percentile of a change full contrast, at most 50."""
    return float(np.clip(1 / max(np.quantile(np.abs(change), 0.995) / 2, 1e-6) / 2, 1, 50))


def reconstructions(
    path: pathlib.Path,
    frames: np.ndarray,
    futures: np.ndarray,
    predicted: np.ndarray,
    copied: np.ndarray,
    names: Sequence[str],
    title: str,
    moments: tuple[str, str, str] = (
        "frame  $I_t$",
        "future  $I_{t+\\delta}$",
        "predicted  $\\hat I_{t+\\delta}$",
    ),
) -> None:
    """Fig. 5: for each pair I_t, I_{t+δ}, Î_{t+δ}, the true change and the predicted change.

    Both changes of a row are amplified alike.

    Args:
      path: of the picture.
      frames, futures, predicted: (B, H, W, 3) in [−1, 1].
      copied: (B, H, W, 3), the prediction of a network that predicts no change. The predicted
        change is the difference to it. In latent space it is I_t as the autoencoder decodes it, so
        that the error of the autoencoder is not taken for a change.
      names: (B,) row labels.
      title: of the picture.
      moments: the titles of the three columns of frames; `$` encloses mathematics.
    """
    columns = (*moments, "true change", "predicted change")
    figure, axes = plt.subplots(
        len(frames), 5, figsize=(10.5, 2.1 * len(frames) + 0.6), squeeze=False, layout="constrained"
    )
    for row, (frame, future, guess, copy, name) in enumerate(
        zip(frames, futures, predicted, copied, names, strict=True)
    ):
        gain = visible_gain(future - frame)
        changes = [amplified(change, gain) for change in (future - frame, guess - copy)]
        shown = [np.clip((p + 1) / 2, 0, 1) for p in (frame, future, guess)]
        for column, picture in enumerate(shown + changes):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(fitted_lines(name), fontsize=7)
        axes[row, 3].set_xlabel(f"x {gain:.1f}", fontsize=7)
        axes[row, 4].set_xlabel(f"x {gain:.1f}", fontsize=7)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=9)
    save(figure, path, title, mathematics=[axis.title for axis in axes[0]])


def delta_ranges(
    path: pathlib.Path, found: Mapping[str, Mapping[str, Sequence[float]]], title: str
) -> None:
    """Fig. 4 of one target: accuracy and UF1 over the ranges of δ.

    The line is the mean, bars are standard deviations, and each cross is a seed.

    Args:
      path: of the picture.
      found: label of the range -> `accuracy` and `uf1` of every seed.
      title: of the picture.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, (name, label) in zip(
        axes, {"accuracy": "accuracy", "uf1": "UF1"}.items(), strict=True
    ):
        values = [np.asarray(scores[name]) for scores in found.values()]
        places = range(len(values))
        axis.errorbar(
            places,
            [v.mean() for v in values],
            [v.std(ddof=1) if len(v) > 1 else 0 for v in values],
            marker="o",
            capsize=3,
        )
        for place, each in enumerate(values):
            axis.plot([place] * len(each), each, "x", color="grey", markersize=4)
        axis.set_xticks(places, [fitted(name, 18) for name in found])
        axis.set(ylabel=label)
        axis.grid(alpha=0.3)
    save(figure, path, title)


FEW = 30  # points, of which each is marked: one alone would draw no line


def _curve(axis, places: np.ndarray, values: np.ndarray, label: str, **how: Any) -> None:
    """A line with its running mean; of a few points the line alone, each of them marked."""
    width = max(1, len(values) // 25)
    if width == 1:
        axis.plot(places, values, ".-" if len(values) <= FEW else "-", label=label, **how)
        return
    (drawn,) = axis.plot(places, values, alpha=0.25, linewidth=0.8, **how)
    smooth = np.convolve(values, np.ones(width) / width, "valid")
    axis.plot(places[-len(smooth) :], smooth, label=label, color=drawn.get_color())


def _nothing_learned(axis, value: float, what: str) -> None:
    """A line at what would be if nothing were learned."""
    axis.axhline(value, color="black", linewidth=0.9, linestyle="--", label=what)


def _along(axis, places: np.ndarray, what: str) -> None:
    """Steps or epochs along the axis, in whole numbers."""
    axis.set_xlabel(what)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(places) == 1:
        axis.set_xlim(places[0] - 1, places[0] + 1)


def pretraining_curves(path: pathlib.Path, lines: Sequence[Mapping[str, float]]) -> None:
    """The losses of a pre-training run over its steps, each with a running mean.

    L_rec is drawn as a share of the copy baseline. At 1 nothing of the motion is predicted.

    Args:
      path: of the picture.
      lines: those of `metrics.jsonl`.
    """
    panels = [
        ("loss_rec",),
        ("loss_l1", "loss_l2", "loss_l3"),
        ("position_norm",),
        ("grad_norm",),
    ]
    if lines and "loss_rec" not in lines[0]:
        panels = [("loss",), ("accuracy",), ("grad_norm",)]
    panels = [[n for n in names if lines and n in lines[0]] for names in panels]
    panels = [names for names in panels if names]

    columns = max(len(panels), 1)
    figure, axes = plt.subplots(
        1, columns, figsize=(4 * columns, 3), squeeze=False, layout="constrained"
    )
    for axis, names in zip(axes[0], panels, strict=False):
        for name in names:
            steps, values = np.array([(line["step"], line[name]) for line in lines], float).T
            if name == "loss_rec":
                copies = np.array([line["copy_baseline"] for line in lines])
                # of frames that are all alike nothing is there to predict: no share, and no point
                values = np.divide(values, copies, np.full_like(values, np.nan), where=copies > 0)
                name = "loss_rec / copy"
                _nothing_learned(axis, 1, "1: the frame repeated")
            _curve(axis, steps, values, name)
        _along(axis, steps, "step")
        axis.legend(fontsize=8)
    save(figure, path)


def what_is_learned(path: pathlib.Path, looks: Sequence[Mapping[str, Any]]) -> None:
    """What a pre-training has learned, and when: L_rec between copy and floors, and R² by name.

    Args:
      path: of the picture.
      looks: those of `metrics.jsonl`, on a source of drawn faces.
    """
    steps = [look["step"] for look in looks]
    names = [n for n in looks[0]["r2_c_delta"] if n not in ("pose", "units")]
    height = 0.21 * len(names) + 1.6
    figure, axes = plt.subplots(
        1, 3, figsize=(7 + 0.9 * len(steps), height), width_ratios=(1.3, 1, 1), layout="constrained"
    )
    if "loss_rec" in looks[0]:
        copy = looks[-1]["floors"]["copy"]
        for name, label in (("loss_rec", "this pair's C_Δ"), ("loss_rec_other", "another's C_Δ")):
            axes[0].plot(steps, [look[name] / copy for look in looks], marker="o", label=label)
        floors = {n: v / copy for n, v in looks[-1]["floors"].items() if n != "still"}
        for name, value in floors.items():
            axes[0].axhline(value, color="grey", linewidth=0.8, linestyle=":")
            place = (1.01, value)
            axes[0].annotate(name, place, xycoords=("axes fraction", "data"), fontsize=7)
        axes[0].set(ylabel="L_rec / copy", title="people never seen")
        axes[0].set_ylim(bottom=0)
    else:
        for name, label in (("r2_c_delta", "from C_Δ"), ("r2_places", "from all places")):
            axes[0].plot(steps, [look[name]["units"] for look in looks], marker="o", label=label)
        axes[0].set(ylabel="R²", title="mean over action units")
    axes[0].set(xlabel="step")
    axes[0].legend(fontsize=8)
    for axis, key, title in zip(
        axes[1:], ("r2_c_delta", "r2_places"), ("R² from C_Δ", "R² from all places"), strict=True
    ):
        values = np.array([[look[key][name] for look in looks] for name in names], float)
        axis.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            text = "–" if np.isnan(value) else f"{value:.2f}"
            colour = "white" if value > 0.6 else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(steps)), steps, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set(title=title, xlabel="step")
    save(figure, path)


def finetuning_curves(
    path: pathlib.Path,
    loss: np.ndarray,
    train_accuracy: np.ndarray,
    test_accuracy: np.ndarray | None,
    counts: Sequence[int],
) -> None:
    """The curves of a fine-tuning run: a thin line for each member, a bold one for their mean.

    Dashed lines are where nothing is learned: each class is equally probable, or the most frequent
    one is always named.

    Args:
      path: of the picture.
      loss, train_accuracy, test_accuracy: (epochs, members); the last is None where nobody is
        tested.
      counts: the number of clips of each class.
    """
    panels = {"training loss": loss, "training accuracy": train_accuracy}
    if test_accuracy is not None:
        panels["test accuracy (never selected on)"] = test_accuracy
    size = (4 * len(panels), 3.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained")
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        epochs = np.arange(1, len(values) + 1)
        style = ".-" if len(values) <= FEW else "-"
        axis.plot(epochs, values, style, color="tab:blue", alpha=0.25, linewidth=0.7)
        mean = values.mean(1)
        axis.plot(epochs, mean, style, color="tab:blue", linewidth=2, label="mean over folds")
        if "accuracy" in name:
            _nothing_learned(axis, max(counts) / sum(counts), "the most frequent class")
            axis.set_ylim(0, 1.02)
        else:
            _nothing_learned(axis, np.log(len(counts)), f"ln {len(counts)}: all classes alike")
        axis.set_title(name)
        _along(axis, epochs, "epoch")
        axis.legend(fontsize=8)
    save(figure, path)


Interval = tuple[float, float, float]  # a value, and the ends of its interval


def compared(
    path: pathlib.Path,
    scores: Mapping[str, Mapping[str, Interval]],
    differences: Mapping[str, Mapping[str, Interval]],
    title: str,
) -> None:
    """Scores of runs with their intervals, and below them the differences to the first.

    Args:
      path: of the picture.
      scores: run -> `accuracy`, `uf1`, `uar`.
      differences: pair of runs -> the same.
      title: of the picture.
    """
    heights = [len(scores) + 1, len(differences) + 1]
    figure, axes = plt.subplots(
        *(2, 3),
        figsize=(11, 0.42 * sum(heights) + 1.6),
        height_ratios=heights,
        sharex="row",
        sharey="row",
        layout="constrained",
    )
    panels = {"accuracy": "accuracy", "uf1": "UF1", "uar": "UAR"}
    for line, rows in zip(axes, (scores, differences), strict=True):
        for axis, (name, shown) in zip(line, panels.items(), strict=True):
            for place, row in enumerate(rows.values()):
                value, low, high = row[name]
                beside_zero = rows is differences and not low <= 0 <= high
                colour = "tab:orange" if beside_zero else "tab:blue"
                axis.plot([low, high], [place, place], color=colour, linewidth=2)
                axis.plot(value, place, "o", color=colour)
                axis.annotate(
                    f"{value:+z.3f}" if rows is differences else f"{value:.3f}",
                    (value, place),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            axis.set_yticks(range(len(rows)), [fitted(name, 34) for name in rows])
            axis.tick_params(axis="y", labelsize=8)
            axis.set_ylim(len(rows) - 0.5, -0.7)
            axis.grid(axis="x", alpha=0.3)
            if rows is scores:
                axis.set_title(shown, fontsize=10)
            else:
                axis.axvline(0, color="black", linewidth=0.8)
                axis.set_xlabel(f"difference of {shown}")
    save(figure, path, f"{title}; lines: intervals made for 95 %; orange: 0 lies outside")


def confusion(path: pathlib.Path, counts: np.ndarray, classes: Sequence[str], title: str) -> None:
    """A confusion matrix with counts, and percentages of each row.

    Args:
      path: of the picture.
      counts: (classes, classes), labels as rows.
      classes: their names.
      title: of the picture.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 1.6 + 0.9 * len(classes)
    figure, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            colour = "white" if share[row, column] > 0.55 else "black"
            text = f"{counts[row, column]:g}\n{share[row, column]:.0%}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    names = [fitted(name, 18) for name in classes]
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="label")
    save(figure, path, title)


def per_subject(path: pathlib.Path, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Accuracy of each test subject, the lowest first, with its number of clips.

    The line is the accuracy over all clips.

    Args:
      path: of the picture.
      rows: subject -> `n` and `accuracy`, as `predictions.summary` has it in `per_subject`.
      title: of the picture.
    """
    names = sorted(rows, key=lambda s: (rows[s]["accuracy"], s))
    values = np.array([rows[s]["accuracy"] for s in names])
    counts = np.array([rows[s]["n"] for s in names])

    width = max(4.0, 0.32 * len(names) + 1.5)
    figure, axis = plt.subplots(figsize=(width, 3.4), layout="constrained")
    axis.bar(range(len(names)), values, color="tab:blue", alpha=0.75)
    for place, (value, count) in enumerate(zip(values, counts, strict=True)):
        axis.text(
            place, value + 0.01, f"{count}", ha="center", va="bottom", fontsize=7, color="dimgrey"
        )
    overall = (values * counts).sum() / counts.sum()
    axis.axhline(overall, color="tab:orange", linewidth=1, label="all clips")
    shown = [fitted(name, 28, lines=1) for name in names]
    axis.set_xticks(range(len(names)), shown, rotation=90, fontsize=7)
    axis.set(ylim=(0, 1.08), ylabel="accuracy")
    axis.legend(fontsize=8, loc="upper left")
    save(figure, path, f"{title}\nabove each bar: number of clips", size=9)


def fitted(name: str, width: int = 28, lines: int = 3) -> str:
    """Somebody's name for a thing, for a picture: at most `lines` lines of `width` characters, the
    middle of a longer one left out, and no character that cannot be drawn."""
    whole = shown = " ".join(_drawable(name).split())
    kept = min(len(whole), width * lines)
    while len(made := textwrap.wrap(shown, width)) > lines:
        kept -= 1
        before = kept // 2  # both ends stay, for they tell names apart
        shown = f"{whole[:before]}…{whole[len(whole) - kept + before :]}"
    return "\n".join(made)


def fitted_lines(text: str) -> str:
    """`fitted`, of a text in lines that stay apart."""
    return "\n".join(map(fitted, text.split("\n")))


def _drawable(text: str) -> str:
    """A text without what no font draws: halves of characters, of a file's name that is no UTF-8,
    are spelled out, and other controls than a new line are blanks."""
    whole = text.encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() or c == "\n" else " " for c in whole)


def save(
    figure,
    path: pathlib.Path,
    title: str = "",
    *,
    size: float = 10,
    mathematics: Collection[Text] = (),
) -> None:
    """Writes the figure as PNG and closes it. A letter that no font has is shown as a box.

    Args:
      title: above all; it is folded to the figure's width, and the figure grows by the lines that
        are more than two.
      size: of the title's letters, in points.
      mathematics: the texts in which `$` encloses mathematics. In all others it is a `$`.
    """
    try:
        with (
            files.whole(path) as temporary,
            warnings.catch_warnings(),
            plt.rc_context({"text.parse_math": False}),  # of texts that are made while drawing
        ):
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            if title:
                _head(figure, _drawable(title), size)
            for text in figure.findobj(Text):
                text.set_parse_math(text in mathematics)
            figure.savefig(temporary, dpi=110, format="png")
    finally:
        plt.close(figure)


def _head(figure, title: str, size: float) -> None:
    """Puts a title above the figure, in lines that are no wider than it is."""
    renderer, font = figure.canvas.get_renderer(), FontProperties(size=size)

    def width(line: str) -> float:
        return renderer.get_text_width_height_descent(line, font, ismath=False)[0]

    room, lines = 0.95 * figure.bbox.width, []
    for line in title.split("\n"):
        letters = max(len(line), 1)
        folded = [line]
        while letters > 1 and (widest := max(map(width, folded))) > room:
            letters = max(1, min(letters - 1, int(letters * room / widest)))
            folded = textwrap.wrap(line, letters)
        lines += folded
    added = max(len(lines) - 2, 0) * 1.3 * size / 72  # 72 points an inch
    figure.set_figheight(figure.get_figheight() + added)
    figure.suptitle("\n".join(lines), fontsize=size)
