"""The paper's numbers and ours side by side, as tables made from `predictions.csv` of finished runs.

Several runs of a row (pre-trained under different seeds) are pooled as more seeds.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation.predictions import (
    Predictions,
    compare,
    read_other,
    read_predictions,
    summary,
)
from ma2mi_jax.reproduction import paper, plans
from ma2mi_jax.reproduction.blocks import Block, Table, Text


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a row's finished runs found together: `predictions` over all their seeds, `summary` of these, `records` their results.json."""

    predictions: Predictions
    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


def read_scores(folders: Sequence[pathlib.Path]) -> Scores:
    """The finished fine-tuning runs of one row, over the same clips.

    Raises:
      UserError: a run is not finished, or was made over other clips or classes than the first.
    """
    records = [files.read_json(folder / "results.json") for folder in folders]
    names = records[0]["classes"]
    first = read_predictions(folders[0] / "predictions.csv", names)
    parts = [first, *(read_other(folder, first.clips, names) for folder in folders[1:])]
    seeds = [seed for part in parts for seed in part.seeds]
    together = dataclasses.replace(
        first, seeds=seeds, probabilities=np.concatenate([part.probabilities for part in parts])
    )
    return Scores(together, summary(together, names), records)


def difference(ours: Scores, baseline: Scores) -> dict[str, Mapping[str, float]]:
    """The scores of a row minus those of its baseline, over the same subjects: see `predictions.compare`."""
    if ours.predictions.clips != baseline.predictions.clips:
        raise UserError("two rows were made over different clips and cannot be compared in pairs")
    return compare(ours.predictions, baseline.predictions, len(ours.summary["classes"]))


# ------------------------------------------------------------------------------------------------------------------- tables


def score_blocks(part: plans.Part, target: str, found: Mapping[str, Scores | str]) -> list[Block]:
    """A table or Fig. 4 for one target: the rows beside the paper's, then each row against the baseline.

    Args:
      found: row key -> its scores, or why there are none.
    """
    methods = paper.methods(part.number) if part.kind == "table" else {}
    if target in paper.DATASETS:
        columns = [
            "",
            "paper Acc %",
            "ours Acc %",
            "ours − paper",
            "95 %",
            "paper UF1",
            "ours UF1",
            "ours − paper",
            "95 %",
            "N",
        ]
        published = {name: scores[target] for name, scores in methods.items() if target in scores}
        rows = [
            [name, _percent(a), *[""] * 3, _plain(f), *[""] * 4]
            for name, (a, f) in published.items()
        ]
        rows += [
            _row(row.label, target, plans.paper_score(part, row, target), found[row.key])
            for row in part.rows
        ]
    else:
        columns = [
            "",
            *(f"paper, {name}" for name in paper.DATASETS.values()),
            "ours Acc %",
            "95 %",
            "ours UF1",
            "95 %",
            "UAR",
            "N",
        ]
        rows = [
            [name, *(_both(of.get(d, (None, None))) for d in paper.DATASETS), *[""] * 6]
            for name, of in methods.items()
        ]
        rows += [_drawn_row(part, row, found[row.key]) for row in part.rows]
    blocks: list[Block] = [Table(columns, rows, _caption(target, found))]
    blocks += [
        Text(f"{row.label}: {found[row.key]}.")
        for row in part.rows
        if isinstance(found[row.key], str)
    ]
    base = found.get(part.baseline)
    others = [
        (row.label, found[row.key])
        for row in part.rows
        if row.key != part.baseline and isinstance(found[row.key], Scores)
    ]
    if isinstance(base, Scores):
        label = next(row.label for row in part.rows if row.key == part.baseline)
        unlike = [
            name for name, scores in others if scores.predictions.clips != base.predictions.clips
        ]
        if unlike:
            blocks.append(
                Text(
                    f"Not compared with “{label}”, being made over other clips: {', '.join(unlike)}. Delete the older runs."
                )
            )
        others = [(name, scores) for name, scores in others if name not in unlike]
    if isinstance(base, Scores) and others:
        compared = [[name, *_difference_cells(difference(scores, base))] for name, scores in others]
        caption = f"Each row minus “{label}”, over the same subjects. Interval: subjects drawn again; p: the two runs exchanged by subject."
        blocks.append(
            Table(
                [f"against “{label}”", "Acc, points", "95 %", "p", "UF1", "95 %", "p"],
                compared,
                caption,
            )
        )
    return blocks


def _row(label: str, target: str, published: paper.Score, scores: Scores | str) -> list[str]:
    accuracy, uf1 = published
    if isinstance(scores, str):
        return [label, _percent(accuracy), "missing", "", "", _plain(uf1), "", "", "", ""]
    a, f = (scores.summary["seeds"][name] for name in ("accuracy", "uf1"))
    minus_a = "" if accuracy is None else f"{100 * a['mean'] - accuracy:+.2f}"
    minus_f = "" if uf1 is None else f"{f['mean'] - uf1:+.4f}"
    n = scores.summary["n"]
    counted = f"{n}" if n == paper.N[target] else f"{n} (paper {paper.N[target]})"
    ours_a, ours_f = _with_spread(a, 100, 2), _with_spread(f, 1, 4)
    return [
        label,
        _percent(accuracy),
        ours_a,
        minus_a,
        _interval(a, 100, 1),
        _plain(uf1),
        ours_f,
        minus_f,
        _interval(f, 1, 3),
        counted,
    ]


def _drawn_row(part: plans.Part, row: plans.Row, scores: Scores | str) -> list[str]:
    """On drawn faces the paper's numbers are for the order of rows alone, so there is no difference to them."""
    cells = [row.label, *(_both(plans.paper_score(part, row, name)) for name in paper.DATASETS)]
    if isinstance(scores, str):
        return [*cells, "missing", "", "", "", "", ""]
    a, f, u = (scores.summary["seeds"][name] for name in ("accuracy", "uf1", "uar"))
    spread = [
        _with_spread(a, 100, 2),
        _interval(a, 100, 1),
        _with_spread(f, 1, 4),
        _interval(f, 1, 3),
        _with_spread(u, 1, 4),
    ]
    return [*cells, *spread, str(scores.summary["n"])]


def _caption(target: str, found: Mapping[str, Scores | str]) -> str:
    there = [scores for scores in found.values() if isinstance(scores, Scores)]
    if not there:
        return ""
    one, record = there[0].summary, there[0].records[0]
    epoch = (
        "last epoch"
        if record["epoch_reported"] == "last"
        else f"epoch chosen by {record['epoch_reported']}"
    )
    sheet = f"; {record['annotations']}" if record["annotations"] else ""
    sentences = [
        f"Protocol {record['protocol']}, {one['subjects']} subjects; predictions pooled over folds, {epoch}{sheet}"
    ]
    counts = sorted({len(s.predictions.seeds) for s in there})
    sentences.append(
        f"mean ± standard deviation over {' or '.join(map(str, counts))} seed(s); 95 % by subjects drawn again"
    )
    if absent := dict.fromkeys(
        name for scores in there for name in scores.summary["absent_classes"]
    ):
        sentences.append(
            f"neither labelled nor predicted in some row, 0 in UF1: {', '.join(absent)}"
        )
    if record["set_aside"]:
        sentences.append(f"{len(record['set_aside'])} clips set aside (results.json)")
    if target not in paper.DATASETS:
        sentences.append(
            "drawn faces: they stand in for no real dataset; the paper's numbers are there for the order of the rows alone"
        )
    return ". ".join(s[0].upper() + s[1:] for s in sentences) + "."


def _difference_cells(compared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cells = []
    for name, scale, digits in (("accuracy", 100, 2), ("uf1", 1, 4)):
        each = compared[name]
        low, high = (f"{scale * end:+.{digits - 1}f}" for end in each["interval95"])
        cells += [
            f"{scale * each['difference']:+.{digits}f}",
            f"{low} to {high}",
            f"{each['p']:.4f}",
        ]
    return cells


def _both(score: paper.Score) -> str:
    return "–" if score == (None, None) else f"{_percent(score[0])} / {_plain(score[1])}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _with_spread(score: Mapping[str, Any], scale: float, digits: int) -> str:
    spread = "" if score["std"] is None else f" ± {scale * score['std']:.{digits}f}"
    return f"{scale * score['mean']:.{digits}f}{spread}"


def _interval(score: Mapping[str, Any], scale: float, digits: int) -> str:
    low, high = (scale * end for end in score["interval95"])
    return f"{low:.{digits}f}–{high:.{digits}f}"
