"""The paper's numbers and ours side by side, made from `predictions.csv` of finished runs.

Several runs of a row (pre-trained under different seeds) are pooled as more seeds.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import intervals
from ma2mi_jax.evaluation.blocks import Block, Table, Text
from ma2mi_jax.evaluation.predictions import (
    FILE,
    Predictions,
    compare,
    pooled,
    read_other,
    read_predictions,
    summary,
)
from ma2mi_jax.reproduction import paper, plans
from ma2mi_jax.reproduction.plans import Part, Row
from ma2mi_jax.training import run_files

PAIRED = (  # a score of the paper, ours, their difference, and our interval; then the other score
    "",
    *("paper Acc %", "ours Acc %", "ours − paper", "interval"),
    *("paper UF1", "ours UF1", "ours − paper", "interval"),
    "N",
)
DRAWN = (
    "",
    *(f"paper, {name}" for name in paper.DATASETS.values()),
    *("ours Acc %", "interval", "ours UF1", "interval", "UAR", "N"),
)
AGAINST = ("Acc, points", "interval", "p", "UF1", "interval", "p")
NOTHING: paper.Score = (None, None)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the finished runs of a row found together.

    Attributes:
      predictions: of all their seeds.
      summary: of these predictions, as `predictions.summary` makes it.
      records: the results.json of each run.
    """

    predictions: Predictions
    summary: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


def read_scores(folders: Sequence[pathlib.Path]) -> Scores:
    """The finished fine-tuning runs of one row, over the same clips.

    Raises:
      UserError: a run is not finished, or was made over other clips or classes than the first.
    """
    records = [run_files.read_results(folder, "finetune") for folder in folders]
    names = records[0]["classes"]
    first = read_predictions(folders[0] / FILE, names)
    parts = [first, *(read_other(folder, first.clips, names) for folder in folders[1:])]
    together = pooled(parts)
    return Scores(together, summary(together, names), records)


def difference(ours: Scores, baseline: Scores) -> dict[str, Mapping[str, float]]:
    """The scores of a row minus those of its baseline, over the same subjects.

    Raises:
      UserError: the two rows were made over different clips.
    """
    if ours.predictions.clips != baseline.predictions.clips:
        raise UserError("two rows were made over different clips and cannot be compared in pairs")
    return compare(ours.predictions, baseline.predictions, len(ours.summary["classes"]))


# ----- tables -------------------------------------------------------------------------------------


def score_blocks(part: Part, target: str, found: Mapping[str, Scores | str]) -> list[Block]:
    """A table, or the numbers of Fig. 4, for one target: the rows beside the paper's, what is
    missing, and each row against the baseline.

    Args:
      found: row key -> its scores, or why there are none.
    """
    real = target in paper.DATASETS
    published = _published_rows(part, target) if real else _published_beside_drawn(part)
    ours = [
        _row(part, row, target, found[row.key]) if real else _drawn_row(part, row, found[row.key])
        for row in part.rows
    ]
    table = Table(PAIRED if real else DRAWN, [*published, *ours], _caption(target, found))
    reasons = ((row.label, found[row.key]) for row in part.rows)
    missing = [Text(f"{label}: {why}.") for label, why in reasons if isinstance(why, str)]
    return [table, *missing, *_against_baseline(part, found)]


def _against_baseline(part: Part, found: Mapping[str, Scores | str]) -> list[Block]:
    """Each row minus the baseline, and which rows cannot be compared with it."""
    there = {row.key: found[row.key] for row in part.rows if isinstance(found[row.key], Scores)}
    if part.baseline not in there:
        return []
    label_of = {row.key: row.label for row in part.rows}
    base, label = there.pop(part.baseline), label_of[part.baseline]
    alike = {key: s for key, s in there.items() if s.predictions.clips == base.predictions.clips}

    blocks: list[Block] = []
    if unlike := [label_of[key] for key in there if key not in alike]:
        text = (
            f"Not compared with “{label}”, because they were made over other clips: "
            f"{', '.join(unlike)}. Delete the older runs to make them again."
        )
        blocks.append(Text(text))
    if alike:
        compared = {key: difference(scores, base) for key, scores in alike.items()}
        rows = [[label_of[key], *_difference_cells(each)] for key, each in compared.items()]
        worth = _worth(list(compared.values()), base)
        caption = (
            f"Each row minus “{label}”, over the same subjects. Interval: {worth}; p: of the "
            "t-test that belongs to it."
        )
        blocks.append(Table((f"against “{label}”", *AGAINST), rows, caption))
    return blocks


# ----- rows ---------------------------------------------------------------------------------------


def _methods(part: Part) -> paper.Rows:
    """Other people's methods, with which a table begins."""
    return paper.methods(part.number) if part.kind == "table" else {}


def _published_rows(part: Part, target: str) -> list[list[str]]:
    """Other people's methods on this dataset."""
    scores = {name: of[target] for name, of in _methods(part).items() if target in of}
    return [
        [name, _percent(accuracy), "", "", "", _plain(uf1), "", "", "", ""]
        for name, (accuracy, uf1) in scores.items()
    ]


def _published_beside_drawn(part: Part) -> list[list[str]]:
    """Other people's methods on each dataset of the paper; none of them saw drawn faces."""
    return [
        [name, *(_both(of.get(dataset, NOTHING)) for dataset in paper.DATASETS), *[""] * 6]
        for name, of in _methods(part).items()
    ]


def _row(part: Part, row: Row, target: str, scores: Scores | str) -> list[str]:
    accuracy, uf1 = plans.paper_score(part, row, target)
    if isinstance(scores, str):
        return [row.label, _percent(accuracy), "missing", "", "", _plain(uf1), "", "", "", ""]
    a, f = (scores.summary["seeds"][name] for name in ("accuracy", "uf1"))
    minus_a = "" if accuracy is None else f"{100 * a['mean'] - accuracy:+.2f}"
    minus_f = "" if uf1 is None else f"{f['mean'] - uf1:+.4f}"
    n, papers_n = scores.summary["n"], paper.N[target]
    return [
        row.label,
        *(_percent(accuracy), _with_spread(a, 100, 2), minus_a, _interval(a, 100, 1)),
        *(_plain(uf1), _with_spread(f, 1, 4), minus_f, _interval(f, 1, 3)),
        f"{n}" if n == papers_n else f"{n} (paper {papers_n})",
    ]


def _drawn_row(part: Part, row: Row, scores: Scores | str) -> list[str]:
    """On drawn faces the paper only shows the order of rows, so there is no difference to it."""
    cells = [row.label, *(_both(plans.paper_score(part, row, name)) for name in paper.DATASETS)]
    if isinstance(scores, str):
        return [*cells, "missing", "", "", "", "", ""]
    a, f, u = (scores.summary["seeds"][name] for name in ("accuracy", "uf1", "uar"))
    return [
        *cells,
        *(_with_spread(a, 100, 2), _interval(a, 100, 1)),
        *(_with_spread(f, 1, 4), _interval(f, 1, 3)),
        _with_spread(u, 1, 4),
        str(scores.summary["n"]),
    ]


def _caption(target: str, found: Mapping[str, Scores | str]) -> str:
    """How the numbers were made."""
    there = [scores for scores in found.values() if isinstance(scores, Scores)]
    if not there:
        return ""
    one, record = there[0].summary, there[0].records[0]
    chosen = record["epoch_reported"]
    epoch = "last epoch" if chosen == "last" else f"epoch chosen by {chosen}"
    sheet = f"; {record['annotations']}" if record["annotations"] else ""
    counts = sorted({len(scores.predictions.seeds) for scores in there})
    sentences = [
        f"Protocol {record['protocol']}, {one['subjects']} subjects; "
        f"predictions pooled over folds, {epoch}{sheet}",
        f"Mean ± standard deviation over {' or '.join(map(str, counts))} seed(s). "
        f"Interval: {_worth([s.summary['seeds'] for s in there], there[0])}",
    ]
    absent = dict.fromkeys(name for scores in there for name in scores.summary["absent_classes"])
    if absent:
        names = ", ".join(absent)
        sentences.append(f"Neither labelled nor predicted in some row, 0 in UF1: {names}")
    if record["set_aside"]:
        sentences.append(f"{len(record['set_aside'])} clips set aside (results.json)")
    if target not in paper.DATASETS:
        drawn = "The faces are drawn and stand in for no real dataset"
        what = drawn if target == "synthetic" else "The paper has no numbers of these clips"
        sentences.append(f"{what}; the paper's numbers only show the order of the rows")
    return ". ".join(sentences) + "."


def _worth(found: Sequence[Mapping[str, Any]], scores: Scores) -> str:
    """What the intervals of a table are; `found` are the rows' scores by name, or differences."""
    fixed = sum(each["accuracy"]["over"] == "subjects" for each in found)
    label = intervals.labels(found[0], scores.summary["subjects"], ("accuracy", "uf1"))
    if not fixed:
        return f"{label}, over subjects and seeds"
    held = "over subjects alone, because of one seed; the trainings are held fixed"
    if fixed == len(found):
        return f"{label}, {held}"
    return f"{label}, over subjects and seeds; in {fixed} of {len(found)} rows {held}"


def _difference_cells(compared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    cells = []
    for name, scale, digits in (("accuracy", 100, 2), ("uf1", 1, 4)):
        each = compared[name]
        low, high = (f"{scale * end:+z.{digits - 1}f}" for end in each["interval95"])
        cells += [
            f"{scale * each['difference']:+z.{digits}f}",
            f"{low} to {high}",
            intervals.shown_p(each["p"]),
        ]
    return cells


def _both(score: paper.Score) -> str:
    return "–" if score == NOTHING else f"{_percent(score[0])} / {_plain(score[1])}"


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
