"""Finished fine-tunings over the same clips, side by side: scores, differences to the first, and a
picture of their intervals."""

import csv
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


def compare(paths: Sequence[pathlib.Path]) -> dict[str, Any]:
    """What finished runs scored, and how the others differ from the first.

    Args:
      paths: folders of two runs or more.

    Returns:
      `n`, `subjects`, `classes`; `runs`, each with its folder (`run`), protocol, init, seeds,
      command, and for every score `mean`, `std`, `interval95` and so on; `differences`, each with
      its folder (`run`), that of the first (`minus`), and for every score what
      `intervals.of_difference` says; `cautions`, sentences about what else differs.

    Raises:
      UserError: fewer than two, or the same one twice; one is not a finished run with a score; or
        it was made over other clips, subjects, labels or classes than the first.
    """
    different = {path.resolve() for path in paths}
    if len(paths) < 2 or len(different) < len(paths):
        raise UserError(
            "{paths}: expected two different runs or more; the others are compared with the first",
            paths=", ".join(map(str, paths)),
        )
    runs = [_read(path) for path in paths]
    names = runs[0].classes
    for run in runs[1:]:
        _check_classes(run, runs[0])
    first = predictions.read_predictions(paths[0] / predictions.FILE, names)
    found = [first, *(predictions.read_other(path, first.clips, names) for path in paths[1:])]
    return {
        "n": len(first.clips),
        "subjects": len({clip.subject for clip in first.clips}),
        "classes": list(names),
        "runs": [_scored(run, of, names) for run, of in zip(runs, found, strict=True)],
        "differences": [
            {"run": str(path), "minus": str(paths[0])} | predictions.compare(of, first, len(names))
            for path, of in zip(paths[1:], found[1:], strict=True)
        ],
        "cautions": list(_cautions(runs, found)),
    }


def _read(path: pathlib.Path) -> Finetuned:
    run = finished.read_finetuned(path)
    if "no_score" in run_files.read_results(path, "finetune"):
        raise UserError(
            "{path}: trained on all subjects, so that it has no score; give runs that leave "
            "subjects out",
            path=path,
        )
    return run


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


def _scored(run: Finetuned, found: Predictions, names: Sequence[str]) -> dict[str, Any]:
    record = run_files.read_results(run.path, "finetune")
    seeds = predictions.summary(found, names)["seeds"]
    return {
        "run": str(run.path),
        "protocol": record["protocol"],
        "init": record.get("init", ""),
        "command": run.stored.command,
        **seeds,
    }


def _cautions(runs: Sequence[Finetuned], found: Sequence[Predictions]) -> list[str]:
    """What the intervals do not know of."""
    said = [*filter(None, [cautions.few_subjects(len({c.subject for c in found[0].clips}))])]
    for run, of in zip(runs[1:], found[1:], strict=True):
        if list(of.folds) != list(found[0].folds):
            said.append(
                f"{run.path}: other folds than {runs[0].path}, so its models learned from other "
                "subjects"
            )
    if len(runs) > 2:
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
        f"{letters[each['run']]}  {pathlib.Path(each['run']).name}": {
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


def lettered(found: Mapping[str, Any]) -> dict[str, str]:
    """A letter for each run, in their order: A is what the others are compared with."""
    return {each["run"]: _letter(place) for place, each in enumerate(found["runs"])}


def _letter(place: int) -> str:
    """A to Z, then AA, AB, ..."""
    first = _letter(place // 26 - 1) if place >= 26 else ""
    return first + chr(ord("A") + place % 26)
