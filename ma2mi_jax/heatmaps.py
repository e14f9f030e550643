"""Pictures of what a fine-tuned model looks at: Fig. 6 over a run's predictions, and one clip with its spotting curve."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt

from ma2mi_jax.report import amplified, visible_gain
from ma2mi_jax.results import Predictions

HEAT = colormaps["inferno"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One pair and what a model makes of it.

    Attributes:
      onset, apex: (H, W, 3) uint8.
      action, position: heat maps over the frame, (H, W) >= 0, as `gradcam.upsample` gives; `position` None where there is no such encoder.
      caption: for the left margin, such as that of `caption`.
    """

    onset: np.ndarray
    apex: np.ndarray
    action: np.ndarray
    position: np.ndarray | None
    caption: str


def choose(predictions: Predictions, per_class: int = 1) -> list[int]:
    """Which clips Fig. 6 shows, by rule and not by hand: positions in `predictions.clips`.

    For each class that is labelled, in order: the `per_class` clips of it that the first seed predicted right with the greatest
    probability, then the `per_class` that it predicted wrong with the greatest; fewer where there are fewer. Ties go to the earlier clip.
    """
    labels, probabilities = predictions.labels, predictions.probabilities[0]
    order = np.argsort(-probabilities.max(-1), kind="stable")
    right = probabilities.argmax(-1) == labels
    return [
        int(i)
        for label in np.unique(labels)
        for outcome in (True, False)
        for i in order[(labels[order] == label) & (right[order] == outcome)][:per_class]
    ]


def caption(clip_id: str, label: str, prediction: str, probability: float, action_units: str) -> str:
    """The left margin of a row: what is annotated, what was predicted, whether that is right, which action units moved."""
    verdict = "right" if label == prediction else "WRONG"
    units = f"\nAU {action_units}" if action_units else ""
    return f"{clip_id}\n{label}{units}\n{verdict}: {prediction} {probability:.0%}"


def overlay(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over a frame, (H, W, 3) uint8 and (H, W) >= 0 -> (H, W, 3) in [0, 1]; the map is scaled to its own maximum.

    Where there is no heat the frame shows, grey and a little darkened; a map without any heat leaves it so everywhere.
    """
    scaled = heat / heat.max() if heat.max() > 0 else np.zeros_like(heat)
    grey = np.repeat(frame.mean(-1, keepdims=True), 3, axis=-1) / 255
    strength = 0.75 * np.sqrt(scaled)[..., None]
    return (1 - strength) * 0.8 * grey + strength * HEAT(0.15 + 0.85 * scaled)[..., :3]


def figure6(path: pathlib.Path, rows: Sequence[Row], title: str) -> None:
    """Fig. 6: a row a pair with onset, apex, the amplified difference, and Grad-CAM of both encoders over the onset frame."""
    figure, axes = plt.subplots(len(rows), 5, figsize=(10.5, 2.1 * len(rows) + 0.7), squeeze=False, layout="constrained")
    for line, row in zip(axes, rows, strict=True):
        _pair(line, row)
        line[0].set_ylabel(row.caption, fontsize=7, rotation=0, ha="right", va="center")
    _headings(axes[0])
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _pair(axes, row: Row) -> None:
    """Five pictures of one pair."""
    change = (row.apex.astype(np.float32) - row.onset) / 127.5
    gain = visible_gain(change)
    pictures = [row.onset, row.apex, amplified(change, gain), overlay(row.onset, row.action)]
    for axis, picture in zip(axes, pictures + ([] if row.position is None else [overlay(row.onset, row.position)]), strict=False):
        axis.imshow(picture, interpolation="nearest")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    axes[2].set_xlabel(f"x {gain:.1f}", fontsize=7)
    for axis, heat in zip(axes[3:], (row.action, row.position), strict=True):
        if heat is None:
            axis.text(0.5, 0.5, "no such encoder", ha="center", va="center", fontsize=7, transform=axis.transAxes)
        elif not heat.any():
            axis.set_xlabel("no place speaks for it", fontsize=7)


def _headings(axes) -> None:
    names = ("onset", "apex", "apex − onset", "Grad-CAM, action", "Grad-CAM, position")
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(name, fontsize=9)


def _save(figure, path: pathlib.Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
