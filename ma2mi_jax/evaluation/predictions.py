"""What a fine-tuning run found: `predictions.csv`, `results.json` and the numbers in them. Predictions are pooled over folds."""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import metrics

SCORES = {"accuracy": metrics.accuracy, "uf1": metrics.uf1, "uar": metrics.uar}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Every clip's prediction by the fold that had not seen its subject.

    Attributes:
      clips: N micro clips, with subject and label.
      folds: (N,) name of the fold that tested each.
      seeds: S of them.
      probabilities: (S, N, classes) float32.
    """

    clips: Sequence[Clip]
    folds: Sequence[str]
    seeds: Sequence[int]
    probabilities: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(N,)"""
        return np.array([clip.label for clip in self.clips])

    @property
    def classes(self) -> np.ndarray:
        """(S, N) the predicted class."""
        return self.probabilities.argmax(-1)


def write_predictions(path: pathlib.Path, predictions: Predictions, names: Sequence[str]) -> None:
    """`predictions.csv`: a row a clip and seed, a probability column for each of the class `names`."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "clip",
                "subject",
                "fold",
                "seed",
                "label",
                "prediction",
                *(f"p_{name}" for name in names),
            ]
        )
        for seed, rows in zip(predictions.seeds, predictions.probabilities, strict=True):
            for clip, fold, p in zip(predictions.clips, predictions.folds, rows, strict=True):
                writer.writerow(
                    [
                        clip.id,
                        clip.subject,
                        fold,
                        seed,
                        names[clip.label],
                        names[p.argmax()],
                        *(f"{v:.6f}" for v in p),
                    ]
                )


def read_predictions(path: pathlib.Path, names: Sequence[str]) -> Predictions:
    """The inverse of `write_predictions`, but that the clips have no frames and probabilities have six digits.

    Raises:
      UserError: the file is missing, lacks a column, a seed or a clip of a seed, or has other classes.
    """
    clips: dict[str, tuple[Clip, str]] = {}
    written: dict[tuple[str, int], np.ndarray] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                clips[row["clip"]] = (
                    Clip(row["clip"], (), subject=row["subject"], label=names.index(row["label"])),
                    row["fold"],
                )
                p = np.array([float(row[f"p_{name}"]) for name in names])
                if p.argmax() != (chosen := names.index(row["prediction"])):
                    p[chosen] = (
                        p.max() + 1e-6
                    )  # six digits made two classes equal: the written one decides
                written[row["clip"], int(row["seed"])] = p
        seeds = sorted({seed for _, seed in written})
        probabilities = np.array([[written[clip, seed] for clip in clips] for seed in seeds])
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); is its folder a finished fine-tuning run?"
        ) from None
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not the predictions.csv of a fine-tuning run with the classes {', '.join(names)} ({error!r})"
        ) from None
    return Predictions(
        [clip for clip, _ in clips.values()],
        [fold for _, fold in clips.values()],
        seeds,
        probabilities,
    )


def read_other(run: pathlib.Path, clips: Sequence[Clip], names: Sequence[str]) -> Predictions:
    """The predictions of the finished run in folder `run` over the same `clips`, in their order: something to compare with.

    Raises:
      UserError: `run` is no finished run, or predicted other clips, subjects, labels or classes.
    """
    theirs = read_predictions(run / "predictions.csv", names)
    place = {(clip.id, clip.subject, clip.label): k for k, clip in enumerate(theirs.clips)}
    asked = [(clip.id, clip.subject, clip.label) for clip in clips]
    if different := sorted(place.keys() ^ set(asked)):
        raise UserError(
            f"{run}: made over other clips, subjects or labels (first: {different[0][0]}; {len(theirs.clips)} clips there, "
            f"{len(asked)} here); runs that are compared or pooled need the same data"
        )
    order = [place[each] for each in asked]
    folds = [theirs.folds[k] for k in order]
    return Predictions(clips, folds, theirs.seeds, theirs.probabilities[:, order])


def confusions_by_subject(predictions: Predictions, classes: np.ndarray, count: int) -> np.ndarray:
    """(S, subjects, count, count) confusion counts of `classes` (S, N), subjects in the order of their names."""
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
    """The content of `results.json` that follows from predictions: n, scores, per_class, per_fold, confusion, seeds.

    `accuracy`, `uf1` and `uar` are means over seeds; `seeds` has each seed's, their standard deviation (None for one seed) and the 95 %
    interval by resampling subjects. `confusion` is summed over seeds.
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
            "interval95": metrics.subject_bootstrap(by_subject, SCORES[name]),
        }
        for name, values in found.items()
    }
    folds, labels = np.array(predictions.folds), predictions.labels
    correct = predictions.classes == labels  # (S, N)
    return {
        "n": len(predictions.clips),
        "subjects": len({clip.subject for clip in predictions.clips}),
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
            for s, c in zip(
                np.unique([clip.subject for clip in predictions.clips]),
                np.moveaxis(by_subject, 1, 0),
                strict=True,
            )
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
    """The scores of each part of a composite, whose subjects carry their dataset's name; else nothing."""
    subjects = np.unique([clip.subject for clip in predictions.clips])
    datasets = np.array([subject.rpartition("/")[0] for subject in subjects])
    if not all(datasets):
        return {}
    parts = {
        d: by_subject[:, datasets == d].sum(1) for d in np.unique(datasets)
    }  # each (S, classes, classes)
    scored = {
        d: {"n": int(c[0].sum())} | {name: score(c).mean() for name, score in SCORES.items()}
        for d, c in parts.items()
    }
    return {"per_dataset": scored}


def compare(ours: Predictions, theirs: Predictions, count: int) -> dict[str, dict[str, Any]]:
    """Paired comparison of two runs over the same clips, score by score: see `metrics.paired_by_subject`."""
    a, b = (confusions_by_subject(each, each.classes, count) for each in (ours, theirs))
    return {
        name: {"theirs": score(b.sum(1)).mean(), **metrics.paired_by_subject(a, b, score)}
        for name, score in SCORES.items()
    }


def oracle(predictions: Predictions, every_epoch: np.ndarray, count: int) -> dict[str, Any]:
    """What choosing each fold's epoch on its own test subject would report: not a result, but what much published code prints.

    Args:
      every_epoch: (epochs, S, N) predicted classes.
    """
    folds = np.array(predictions.folds)
    correct = every_epoch == predictions.labels
    chosen = every_epoch[-1].copy()
    for fold in set(folds):
        best = correct[:, :, folds == fold].mean(-1).argmax(0)  # (S,) the first best epoch
        for s, epoch in enumerate(best):
            chosen[s, folds == fold] = every_epoch[epoch, s, folds == fold]
    by_seed = confusions_by_subject(predictions, chosen, count).sum(1)
    return {
        "what": "best epoch of each fold, chosen on its own test subject: optimistic, not comparable with the scores above",
        **{name: score(by_seed).mean() for name, score in SCORES.items()},
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
