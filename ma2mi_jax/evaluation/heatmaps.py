"""Pictures of what a fine-tuned model looks at: Fig. 6 over a run's predictions, and a single clip
with its spotting curve."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt

from ma2mi_jax.clips.spotting import Spotted
from ma2mi_jax.evaluation.drawing import amplified, fitted, fitted_lines, save, visible_gain
from ma2mi_jax.evaluation.predictions import Predictions

HEAT = colormaps["turbo"]
MAPS = {
    "action": "Grad-CAM, action",
    "position": "Grad-CAM, position",
    "places": "what each place gives",
}
SHOWN = 8  # candidates that a strip over time shows as faces
CAMS = ("action", "position")  # of `MAPS`, the Grad-CAMs
LEVELS = (0.25, 0.5, 0.75)  # where lines are, as shares of the greatest value
SCALE = (
    "lines at 25, 50 and 75 % of the greatest value of its kind (Grad-CAM, or places) in this "
    "picture"
)


@dataclasses.dataclass(frozen=True)
class HeatRow:
    """One pair of frames, and where a model looks in them.

    Attributes:
      onset, apex: (H, W, 3) uint8.
      action, position, places: heat maps over the frame, (H, W) >= 0, as `gradcam.upsample` makes
        them from those of an `Explanation`. If a map is None in every row, its column is left out.
      caption: text for the left margin, such as `caption` returns.
    """

    onset: np.ndarray
    apex: np.ndarray
    action: np.ndarray
    position: np.ndarray | None
    caption: str = ""
    places: np.ndarray | None = None


def choose(predictions: Predictions, per_class: int = 1) -> list[int]:
    """Which clips Fig. 6 shows, by a rule and not by hand.

    For each class that has labels, in order: the clips that the first seed predicted right with the
    greatest probability, then those that it predicted wrong with the greatest probability. Ties go
    to the earlier clip.

    Args:
      per_class: how many right and how many wrong clips of a class, at most.

    Returns:
      Positions in `predictions.clips`.
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


def caption(
    clip_id: str, label: str, prediction: str, probability: float, action_units: str
) -> str:
    """The left margin of a row: label, action units, prediction, and whether that is right."""
    verdict = "right" if label == prediction else "WRONG"
    units = f"\nAU {action_units}" if action_units else ""
    return f"{clip_id}\n{label}{units}\n{verdict}: {prediction} {probability:.0%}"


def scales(rows: Sequence[HeatRow]) -> dict[str, float]:
    """The greatest value of each kind of heat map over all rows, by the names of `MAPS`.

    Both Grad-CAMs are one kind. So maps can be compared over a picture, and a map that is weak
    beside the others looks weak.
    """
    greatest = {
        name: max(float(h.max()) for row in rows if (h := getattr(row, name)) is not None)
        for name in _maps(rows)
    }
    cams = [greatest[name] for name in CAMS if name in greatest]
    return greatest | {name: max(cams) for name in CAMS if name in greatest}


def figure6(path: pathlib.Path, rows: Sequence[HeatRow], title: str) -> None:
    """Fig. 6: for each pair the onset, the apex, the amplified difference, and the heat maps.

    The heat maps lie over the onset frame, on common scales (`scales`).
    """
    greatest = scales(rows)
    columns = 3 + len(greatest)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(2.1 * columns, 2.1 * len(rows) + 0.7),
        squeeze=False,
        layout="constrained",
    )
    for line, row in zip(axes, rows, strict=True):
        _draw_pair(line, row, greatest)
        told = fitted_lines(row.caption)
        line[0].set_ylabel(told, fontsize=7, rotation=0, ha="right", va="center")
    _headings(axes[0], greatest)
    save(figure, path, f"{title}\n{SCALE}")


def clip_picture(
    path: pathlib.Path,
    row: HeatRow,
    spotted: Spotted,
    first: int,
    how: str,
    scores: Mapping[str, tuple[float, float]],
    title: str,
    named: str | None = None,
) -> None:
    """One clip: its pair as in Fig. 6, the spotting curve, and the probabilities of the classes.

    Args:
      path: of the picture.
      row: the pair.
      spotted: onset, apex and the curve.
      first: the position in the clip at which the frames of `spotted` begin.
      how: how onset and apex were found; the title of the curve.
      scores: class -> mean probability over the models, and its standard deviation.
      title: of the picture.
      named: the class whose bar stands out; None if no class is named.
    """
    figure = plt.figure(figsize=(12.5, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.3, 2.6))
    greatest = scales([row])
    axes = top.subplots(1, 3 + len(greatest))
    _draw_pair(axes, row, greatest)
    _headings(axes, greatest)

    curve, bars = bottom.subplots(1, 2, width_ratios=(3, 2))
    places = first + np.arange(len(spotted.curve))
    curve.plot(
        places,
        spotted.curve,
        color="tab:gray",
        linewidth=1.2,
        marker="." if len(places) < 60 else "",
    )
    for name, position, colour in (
        ("onset", spotted.onset, "tab:blue"),
        ("apex", spotted.apex, "tab:red"),
    ):
        curve.axvline(places[position], color=colour, linewidth=1)
        curve.plot(
            places[position],
            spotted.curve[position],
            "o",
            color=colour,
            label=f"{name}: frame {places[position]}",
        )
    curve.xaxis.get_major_locator().set_params(integer=True)
    curve.set(xlabel="frame of the clip, from 0", ylabel="share of the change\nfrom onset to apex")
    curve.set_title(how, fontsize=9)
    curve.legend(fontsize=8)

    names = list(scores)
    mean, spread = np.array([scores[name] for name in names]).T
    bars.barh(
        range(len(names)),
        mean,
        xerr=spread,
        color=["tab:orange" if name == named else "tab:gray" for name in names],
        capsize=3,
    )
    bars.set_yticks(range(len(names)), [fitted(name) for name in names])
    bars.axvline(1 / len(names), color="black", linewidth=0.8, linestyle=":")
    bars.set(xlim=(0, 1), xlabel="probability, mean ± std over the run's models; dotted: chance")
    bars.invert_yaxis()
    save(figure, path, f"{title}\n{SCALE}")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A place in a clip where a micro-expression may be.

    Attributes:
      onset, apex: on the axis of time.
      verdict: what is said about it.
      named: whether that is a class.
      face: (H, W, 3) uint8, the apex.
    """

    onset: float
    apex: float
    verdict: str
    named: bool
    face: np.ndarray


def over_time(
    path: pathlib.Path,
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
    candidates: Sequence[Candidate],
    axis: str,
) -> None:
    """A strip over time: how much comes and goes in a face, and the candidates, in their order.

    Args:
      path: of the picture.
      curves: times and activity of each part, see `spotting.activity`.
      candidates: the strongest first; the first SHOWN of them are shown as faces.
      axis: what the axis of time shows.
    """
    figure = plt.figure(figsize=(12.5, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2, 2.4))
    shown = candidates[:SHOWN]
    for number, (place, each) in enumerate(
        zip(top.subplots(1, SHOWN, squeeze=False)[0], shown, strict=False), start=1
    ):
        place.imshow(each.face)
        place.set_title(f"{number}: {fitted(each.verdict, 22)}", fontsize=8)
    for place in top.axes:
        place.axis("off")

    strip = bottom.subplots()
    for times, values in curves:
        strip.plot(times, values, color="tab:gray", linewidth=1)
    highest = max(values.max() for _, values in curves)
    for number, each in enumerate(candidates, start=1):
        colour = "tab:orange" if each.named else "lightgray"
        strip.axvspan(each.onset, each.apex, color=colour, alpha=0.6)
        if number <= SHOWN:
            strip.text(each.apex, 1.02 * highest, str(number), fontsize=8, ha="center")
    strip.set(xlabel=axis, ylabel="what comes and goes,\nover its median")
    strip.set_ylim(0, 1.15 * highest or 1)
    save(figure, path, "candidates, the strongest first; grey: no class is named")


def _maps(rows: Sequence[HeatRow]) -> list[str]:
    """The names of the heat maps that at least one row has."""
    return [name for name in MAPS if any(getattr(row, name) is not None for row in rows)]


def _draw_pair(axes, row: HeatRow, greatest: Mapping[str, float]) -> None:
    """Onset, apex, their difference and the heat maps, each on an axis of its own."""
    change = (row.apex.astype(np.float32) - row.onset) / 127.5
    gain = visible_gain(change)
    pictures = [row.onset, row.apex, amplified(change, gain), *[row.onset] * len(greatest)]
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
    axes[2].set_xlabel(f"x {gain:.1f}", fontsize=7)
    for axis, (name, most) in zip(axes[3:], greatest.items(), strict=True):
        _draw_heat(axis, getattr(row, name), most)


def _draw_heat(axis, heat: np.ndarray, most: float) -> None:
    """A heat map as lines and a light tint, through which the face is seen; below it how strong it
    is at most, as a share of `most`."""
    if not heat.any():
        axis.set_xlabel("no place speaks for it", fontsize=7)
        return
    share = heat / most
    edges = [*LEVELS, 1.01]
    colours = [HEAT(level) for level in (0.45, 0.7, 0.88)]
    axis.contourf(share, edges, colors=colours, alpha=0.22)
    crossed = [level for level in LEVELS if share.min() < level < share.max()]
    if crossed:
        lines = [colours[LEVELS.index(level)] for level in crossed]
        axis.contour(share, crossed, colors=lines, linewidths=1.3)
    axis.set_xlabel(f"at most {share.max():.0%}", fontsize=7)


def _headings(axes, maps: Iterable[str]) -> None:
    for axis, name in zip(
        axes, ["onset", "apex", "apex − onset", *(MAPS[name] for name in maps)], strict=True
    ):
        axis.set_title(name, fontsize=9)
