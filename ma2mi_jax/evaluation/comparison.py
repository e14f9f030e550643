"""Finished fine-tunings over the same clips, side by side: scores, differences to the first, and a
picture of their intervals."""

import csv
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import cautions, drawing, predictions
from ma2mi_jax.evaluation.predictions import SCORES, Predictions
from ma2mi_jax.training import finished, run_files
from ma2mi_jax.training.finished import Finetuned

COLUMNS = ("run", "minus", "score", "value", "low", "high", "p", "seeds", "subjects", "n")


@dataclasses.dataclass(frozen=True)
class Scored:
    """A finished run that has a score, and its results.json."""

    run: Finetuned
    record: Mapping[str, Any]

    @property
    def init(self) -> str:
        """The pre-training that it started from: a folder or a file; empty if from scratch."""
        init = self.record.get("init", "")
        return "" if init == "none" else init


@dataclasses.dataclass(frozen=True)
class Side:
    """A method: one finished run, or several that were pre-trained apart.

    Attributes:
      name: their folders, joined by commas.
      runs: the runs.
      parts: the predictions of each, over the same clips in the same order.
    """

    name: str
    runs: Sequence[Scored]
    parts: Sequence[Predictions]

    @functools.cached_property
    def together(self) -> Predictions:
        """The predictions of all its runs."""
        return predictions.pooled(self.parts)


def compare(sides: Sequence[Sequence[pathlib.Path]]) -> dict[str, Any]:
    """What finished runs scored, and how the others differ from the first.

    Args:
      sides: two or more; each the folder of a run, or the folders of several that were pre-trained
        apart. Such runs are pooled, and an interval counts each pre-training once.

    Returns:
      `n`, `subjects`, `classes`; `runs`, one for each side, each with the name of the side (`run`:
      its folders, joined by commas), for every score `mean`, `std`, `interval95` and so on over all
      seeds, and `folders`, a list with `run`, `protocol`, `init`, `command` and the mean
      `accuracy`, `uf1` and `uar` of each; `differences`, each with the side (`run`), the first
      (`minus`), and for every score what `intervals.of_difference` says; `cautions`, sentences
      about what else differs and what is held fixed.

    Raises:
      UserError: fewer than two sides, or a run twice; two runs of a side start from the same
        pre-training; one is not a finished run with a score; or it was made over other clips,
        subjects, labels or classes than the first.
    """
    paths = [path for side in sides for path in side]
    if len(sides) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise UserError(
            "{paths}: expected two different runs or more; the others are compared with the first",
            paths=", ".join(map(str, paths)),
        )
    read = [[_read(path) for path in side] for side in sides]
    first = read[0][0].run
    for each in itertools.chain(*read):
        _check_classes(each.run, first)
    for runs in read:
        _check_apart(runs)
    names = first.classes
    ours = predictions.read_predictions(first.path / predictions.FILE, names)
    clips = ours.clips
    found = [
        Side(
            ",".join(str(each.run.path) for each in runs),
            runs,
            [
                ours if each.run is first else predictions.read_other(each.run.path, clips, names)
                for each in runs
            ],
        )
        for runs in read
    ]
    base = found[0]
    return {
        "n": len(clips),
        "subjects": len({clip.subject for clip in clips}),
        "classes": list(names),
        "runs": [_scored(side, names) for side in found],
        "differences": [
            {"run": side.name, "minus": base.name}
            | predictions.compare(side.together, base.together, len(names))
            for side in found[1:]
        ],
        "cautions": list(_cautions(found)),
    }


def _read(path: pathlib.Path) -> Scored:
    run = finished.read_finetuned(path)
    record = run_files.read_results(path, "finetune")
    if "no_score" in record:
        raise UserError(
            "{path}: trained on all subjects, so that it has no score; give runs that leave "
            "subjects out",
            path=path,
        )
    return Scored(run, record)


def _check_classes(run: Finetuned, first: Finetuned) -> None:
    if set(run.classes) != set(first.classes):
        raise UserError(
            "{run}: its classes are {there}, and those of {first} are {here}; give runs over the "
            "same classes",
            run=run.path,
            there=", ".join(run.classes),
            first=first.path,
            here=", ".join(first.classes),
        )


def _check_apart(runs: Sequence[Scored]) -> None:
    """Two fine-tunings of one pre-training would count as two pre-trainings."""
    start: dict[str, Scored] = {}
    for each in runs:
        if each.init in start:
            raise UserError(
                "{run}: starts from {init}, as {other} does, so that they are one pre-training; "
                "give one of them, fine-tuned with more seeds",
                run=each.run.path,
                init=each.init,
                other=start[each.init].run.path,
            )
        if each.init:
            start[each.init] = each


def _scored(side: Side, names: Sequence[str]) -> dict[str, Any]:
    """What compare.json says of a side."""
    folders = []
    for each, part in zip(side.runs, side.parts, strict=True):
        summary = predictions.summary(part, names)
        folders.append(
            {
                "run": str(each.run.path),
                "protocol": each.record["protocol"],
                "init": each.record.get("init", ""),
                "command": each.run.stored.command,
                **{name: summary[name] for name in SCORES},
            }
        )
    return {
        "run": side.name,
        **predictions.summary(side.together, names)["seeds"],
        "folders": folders,
    }


def _cautions(sides: Sequence[Side]) -> list[str]:
    """What the intervals do not know of."""
    base = sides[0]
    said = [*filter(None, [cautions.few_subjects(len({c.subject for c in base.together.clips}))])]
    first = base.parts[0].folds
    for side in sides:
        for each, part in zip(side.runs, side.parts, strict=True):
            if list(part.folds) != list(first):
                said.append(
                    f"{each.run.path}: other folds than {base.runs[0].run.path}, so its models "
                    "learned from other subjects"
                )
    once = [side.name for side in sides if len(side.runs) == 1 and side.runs[0].init]
    if once:
        said.append(
            f"pre-trained once, which is held fixed: {', '.join(once)}. Pre-trained again, with "
            "another seed or on another processor, they may land outside the interval; runs that "
            "were pre-trained apart are compared together if commas join them (RUN,RUN)"
        )
    if len(sides) > 2:
        said.append("p is of each pair alone, not corrected for the number of pairs")
    return said


def write(out: pathlib.Path, found: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes compare.json, compare.csv and compare.png into a folder that is there; their paths."""
    paths = [out / f"compare.{suffix}" for suffix in ("json", "csv", "png")]
    files.write_json(paths[0], found)
    with files.whole(paths[1]) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(found))
    draw(paths[2], found)
    return paths


def _rows(found: Mapping[str, Any]) -> list[list[Any]]:
    """A row for each run's each score, then one for each difference's."""
    rows, counts = [], [found["subjects"], found["n"]]
    seeds = {each["run"]: len(each["seeds"]) for each in found["runs"]}
    for each in found["runs"]:
        for name in SCORES:
            ends = [f"{end:.6f}" for end in each[name]["interval95"]]
            value = f"{each[name]['mean']:.6f}"
            rows.append([each["run"], "", name, value, *ends, "", seeds[each["run"]], *counts])
    for each in found["differences"]:
        for name in SCORES:
            ends = [f"{end:.6f}" for end in each[name]["interval95"]]
            value, p = f"{each[name]['difference']:.6f}", f"{each[name]['p']:.6f}"
            start = [each["run"], each["minus"], name]
            rows.append([*start, value, *ends, p, seeds[each["run"]], *counts])
    return rows


def draw(path: pathlib.Path, found: Mapping[str, Any]) -> None:
    """The picture: each run's scores above, the differences to the first below."""
    letters = lettered(found)
    scores = {
        f"{letters[each['run']]}  {_short(each)}": {
            name: (each[name]["mean"], *each[name]["interval95"]) for name in SCORES
        }
        for each in found["runs"]
    }
    differences = {
        f"{letters[each['run']]} − {letters[each['minus']]}": {
            name: (each[name]["difference"], *each[name]["interval95"]) for name in SCORES
        }
        for each in found["differences"]
    }
    title = f"{found['subjects']} subjects, N = {found['n']}"
    drawing.compared(path, scores, differences, title)


def _short(side: Mapping[str, Any]) -> str:
    """The name of a side in a picture: of its first folder, and how many more there are."""
    first, *more = (pathlib.Path(each["run"]).name for each in side["folders"])
    return f"{first} and {len(more)} more" if more else first


def lettered(found: Mapping[str, Any]) -> dict[str, str]:
    """A letter for each run, in their order: A is what the others are compared with."""
    return {each["run"]: _letter(place) for place, each in enumerate(found["runs"])}


def _letter(place: int) -> str:
    """A to Z, then AA, AB, ..."""
    first = _letter(place // 26 - 1) if place >= 26 else ""
    return first + chr(ord("A") + place % 26)
