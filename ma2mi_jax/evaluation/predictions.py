"""What a fine-tuning run found: `predictions.csv`, `results.json` and the numbers in them.

Predictions are pooled over folds. In the shapes below, N is the number of clips and S the number of
seeds.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import intervals, metrics
from ma2mi_jax.files import whole

FILE = "predictions.csv"  # in a run's folder
COLUMNS = ("clip", "subject", "fold", "seed", "label", "prediction")
SCORES = {"accuracy": metrics.accuracy, "uf1": metrics.uf1, "uar": metrics.uar}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The prediction for every clip, by the fold that had not seen its subject.

    Attributes:
      clips: (N,) clips of micro-expressions, with subject and label.
      folds: (N,) name of the fold that tested each clip.
      seeds: (S,)
      probabilities: (S, N, classes) float32.
      runs: (S,) the number of the run of each seed, where several runs are pooled; else empty.
    """

    clips: Sequence[Clip]
    folds: Sequence[str]
    seeds: Sequence[int]
    probabilities: np.ndarray
    runs: Sequence[int] = ()

    @property
    def labels(self) -> np.ndarray:
        """(N,) the label of each clip."""
        return np.array([clip.label for clip in self.clips])

    @property
    def classes(self) -> np.ndarray:
        """(S, N) the predicted class of each clip."""
        return self.probabilities.argmax(-1)

    @property
    def trainings(self) -> Sequence[int]:
        """(S,) as `intervals.of_score` takes it: of several runs, each counts once."""
        return self.runs if len(set(self.runs)) > 1 else ()


def write_predictions(path: pathlib.Path, predictions: Predictions, names: Sequence[str]) -> None:
    """Writes `predictions.csv`: a row for each clip and seed.

    Args:
      path: of the file.
      predictions: what is written.
      names: of the classes; each has a column of probabilities.
    """
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(f"p_{name}" for name in names)])
        for seed, rows in zip(predictions.seeds, predictions.probabilities, strict=True):
            for clip, fold, p in zip(predictions.clips, predictions.folds, rows, strict=True):
                chosen = names[p.argmax()]
                row = (clip.id, clip.subject, fold, seed, names[clip.label], chosen)
                writer.writerow([*row, *(f"{value:.6f}" for value in p)])


def read_predictions(path: pathlib.Path, names: Sequence[str]) -> Predictions:
    """The inverse of `write_predictions`. But the clips have no frames, and probabilities six
    digits.

    Raises:
      UserError: the file is missing; or it lacks a column, or a clip of a seed; or it has other
        classes.
    """
    clips: dict[str, tuple[Clip, str]] = {}
    written: dict[tuple[str, int], np.ndarray] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                label = names.index(row["label"])
                clip = Clip(row["clip"], (), subject=row["subject"], label=label)
                clips[clip.id] = (clip, row["fold"])

                p = np.array([float(row[f"p_{name}"]) for name in names])
                chosen = names.index(row["prediction"])
                if p.argmax() != chosen:  # equal in six digits: the prediction that is written wins
                    p[chosen] = p.max() + 1e-6
                written[row["clip"], int(row["seed"])] = p
        seeds = sorted({seed for _, seed in written})
        probabilities = np.array([[written[clip, seed] for clip in clips] for seed in seeds])
    except OSError as error:
        raise UserError(
            "{path}: cannot be read ({reason}); give the folder of a finished fine-tuning run",
            path=path,
            reason=error.strerror,
        ) from None
    except (KeyError, ValueError, TypeError, csv.Error) as error:  # cells may be missing
        raise UserError(
            "{path}: expected the predictions of a fine-tuning run with the classes {classes}, "
            "found something else ({error!r}); give a run over the same dataset",
            path=path,
            classes=", ".join(names),
            error=error,
        ) from None
    return Predictions(
        [clip for clip, _ in clips.values()],
        [fold for _, fold in clips.values()],
        seeds,
        probabilities,
    )


def read_other(run: pathlib.Path, clips: Sequence[Clip], names: Sequence[str]) -> Predictions:
    """The predictions of another finished run over the same clips, to compare with.

    Args:
      run: its folder.
      clips: (N,) which decide the order of the result.
      names: of the classes.

    Raises:
      UserError: `run` is not a finished run; or its clips, subjects, labels or classes are others.
    """
    theirs = read_predictions(run / FILE, names)
    if different := _what_differs(theirs.clips, clips, names):
        raise UserError(
            "{run}: has other clips, subjects or labels ({different}); give a run over the same "
            "data, to compare or to pool",
            run=run,
            different=different,
        )
    place = {clip.id: k for k, clip in enumerate(theirs.clips)}
    order = [place[clip.id] for clip in clips]
    folds = [theirs.folds[k] for k in order]
    return Predictions(clips, folds, theirs.seeds, theirs.probabilities[:, order])


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of runs that were pre-trained apart, together: each counts as one training.

    Args:
      parts: of one run or more, with the same clips in the same order.
    """
    return dataclasses.replace(
        parts[0],
        seeds=[seed for part in parts for seed in part.seeds],
        probabilities=np.concatenate([part.probabilities for part in parts]),
        runs=[number for number, part in enumerate(parts) for _ in part.seeds],
    )


def _what_differs(there: Sequence[Clip], here: Sequence[Clip], names: Sequence[str]) -> str:
    """How the clips of two runs differ, in words; empty if they do not."""
    theirs, ours = ({clip.id: clip for clip in clips} for clips in (there, here))
    told = [
        f"{len(alone)} of {len(of)} clips are {where} alone, such as {min(alone)}"
        for alone, of, where in (
            (theirs.keys() - ours.keys(), theirs, "there"),
            (ours.keys() - theirs.keys(), ours, "here"),
        )
        if alone
    ]
    for what, of in (
        ("subject", lambda clip: clip.subject),
        ("label", lambda clip: names[clip.label]),
    ):
        both = sorted(theirs.keys() & ours.keys())
        if other := [id for id in both if of(theirs[id]) != of(ours[id])]:
            first = f"{other[0]}, {of(theirs[other[0]])} there and {of(ours[other[0]])} here"
            told.append(f"{len(other)} have another {what}, such as {first}")
    return "; ".join(told)


def confusions_by_subject(predictions: Predictions, classes: np.ndarray, count: int) -> np.ndarray:
    """The confusion matrix of each subject.

    Args:
      predictions: of which clips and labels count.
      classes: (S, N) predicted classes.
      count: the number of classes.

    Returns:
      (S, subjects, count, count) counts, labels as rows, subjects in the order of their names.
    """
    subjects = np.array([clip.subject for clip in predictions.clips])
    labels = predictions.labels
    return np.stack(
        [
            [
                metrics.confusion(labels[subjects == s], seed[subjects == s], count)
                for s in np.unique(subjects)
            ]
            for seed in classes
        ]
    )


def summary(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """What `results.json` says about predictions: n, scores, per_class, per_fold, confusion, seeds.

    `accuracy`, `uf1` and `uar` are means over seeds. `seeds` has the scores of each seed, their
    standard deviation (None for one seed), and their interval (`intervals.of_score`).
    `confusion` is summed over seeds.
    """
    by_subject = confusions_by_subject(predictions, predictions.classes, len(names))
    by_seed = by_subject.sum(1)  # (S, classes, classes)
    pooled = by_seed.sum(0)
    found = {name: score(by_seed) for name, score in SCORES.items()}
    spread = {
        name: {
            "values": values,
            "mean": values.mean(),
            "std": values.std(ddof=1) if len(values) > 1 else None,
            **intervals.of_score(by_subject, SCORES[name], predictions.trainings),
        }
        for name, values in found.items()
    }
    subjects = np.unique([clip.subject for clip in predictions.clips])
    folds, labels = np.array(predictions.folds), predictions.labels
    correct = predictions.classes == labels  # (S, N)

    return {
        "n": len(predictions.clips),
        "subjects": len(subjects),
        "classes": list(names),
        **{name: values.mean() for name, values in found.items()},
        "per_class": {
            name: {
                "f1": metrics.f1(by_seed)[:, i].mean(),
                "recall": metrics.recall(by_seed)[:, i].mean(),
                "n": int((labels == i).sum()),
            }
            for i, name in enumerate(names)
        },
        "per_subject": {
            s: {"n": int(c[0].sum()), "accuracy": float(np.mean(metrics.accuracy(c)))}
            for s, c in zip(subjects, np.moveaxis(by_subject, 1, 0), strict=True)
        },
        **_by_dataset(predictions, by_subject),
        "per_fold": {
            f: {"n": int((folds == f).sum()), "accuracy": correct[:, folds == f].mean()}
            for f in sorted(set(folds))
        },
        "confusion": pooled,
        "absent_classes": [names[i] for i in metrics.absent(pooled)],
        "seeds": {"seeds": list(predictions.seeds), **spread},
    }


def _by_dataset(predictions: Predictions, by_subject: np.ndarray) -> dict[str, Any]:
    """The scores of each dataset in a composite, whose subjects are named `dataset/subject`.

    Empty if the predictions are not those of a composite.
    """
    subjects = np.unique([clip.subject for clip in predictions.clips])
    datasets = np.array([subject.rpartition("/")[0] for subject in subjects])
    if not all(datasets):
        return {}
    # each (S, classes, classes)
    parts = {d: by_subject[:, datasets == d].sum(1) for d in np.unique(datasets)}
    scored = {
        d: {"n": int(c[0].sum())} | {name: score(c).mean() for name, score in SCORES.items()}
        for d, c in parts.items()
    }
    return {"per_dataset": scored}


def compare(ours: Predictions, theirs: Predictions, count: int) -> dict[str, dict[str, Any]]:
    """Compares two runs over the same clips, score by score: see `intervals.of_difference`.

    Args:
      ours, theirs: predictions with the clips in the same order.
      count: the number of classes.
    """
    a, b = (confusions_by_subject(each, each.classes, count) for each in (ours, theirs))
    trainings = (ours.trainings, theirs.trainings)
    return {
        name: {
            "theirs": score(b.sum(1)).mean(),
            **intervals.of_difference(a, b, score, trainings),
        }
        for name, score in SCORES.items()
    }


def oracle(predictions: Predictions, every_epoch: np.ndarray, count: int) -> dict[str, Any]:
    """The scores if the epoch of each fold were chosen on its own test subject.

    Each score has its own choice: the epoch that is best by it; ties go to the later epoch. This is
    not a result. Much published code prints it, so it is reported apart, under its own name.

    Args:
      predictions: of which clips, folds and labels count.
      every_epoch: (epochs, S, N) predicted classes.
      count: the number of classes.
    """
    folds, epochs = np.array(predictions.folds), range(len(every_epoch))
    pooled = dict.fromkeys(SCORES, 0)  # confusion matrices of the chosen epochs, (S, ...)
    for fold in set(folds):
        tested = folds == fold
        labels = predictions.labels[tested]
        by_epoch = np.array(
            [
                [metrics.confusion(labels, guessed, count) for guessed in every_epoch[e][:, tested]]
                for e in epochs
            ]
        )  # (epochs, S, classes, classes)
        for name, score in SCORES.items():
            best = len(epochs) - 1 - score(by_epoch)[::-1].argmax(0)  # (S,)
            pooled[name] = pooled[name] + by_epoch[best, np.arange(len(best))]
    return {
        "what": "best epoch of each fold by each score, chosen on its own test subject: "
        "optimistic, not comparable with the scores above",
        **{name: score(pooled[name]).mean() for name, score in SCORES.items()},
    }


Difference = tuple[str, int, int | None, int | None]
"""A clip, a seed, and the classes predicted before and after; None where there is no prediction."""


def differences(before: Predictions, after: Predictions) -> tuple[list[Difference], float]:
    """What was predicted otherwise, and by how much probabilities differ at most."""

    def by_clip(predictions: Predictions) -> dict[tuple[str, int], np.ndarray]:
        return {
            (clip.id, seed): p
            for seed, rows in zip(predictions.seeds, predictions.probabilities, strict=True)
            for clip, p in zip(predictions.clips, rows, strict=True)
        }

    was, now = by_clip(before), by_clip(after)

    def class_of(found: dict, key: tuple[str, int]) -> int | None:
        return int(found[key].argmax()) if key in found else None

    keys = sorted(was.keys() | now.keys())
    pairs = [(*key, class_of(was, key), class_of(now, key)) for key in keys]
    both = was.keys() & now.keys()
    largest = max((float(abs(now[key] - was[key]).max()) for key in both), default=0.0)
    return [pair for pair in pairs if pair[2] != pair[3]], largest
