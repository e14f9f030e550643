"""Subject-independent splits (paper §4.2) as plain index arrays."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fold:
    """One split: indices into the clips, int32, sorted; no subject is on both sides.

    Attributes:
      name: the test subject under LOSO, the test dataset under LODO, else `fold1`, `fold2`, ...
      number: seeds the fold's own randomness, so that its result does not depend on which other
        folds run.
      inner: clips of training subjects that are held out from training, to choose an epoch on
        (`hold_out`); else empty.
    """

    name: str
    number: int
    train: np.ndarray
    test: np.ndarray
    inner: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))


def loso(subjects: Sequence[str]) -> tuple[Fold, ...]:
    """Leave one subject out: a fold for each subject, in the order of their names.

    Raises:
      ValueError: fewer than two subjects.
    """
    return _by_subject(subjects, {s: s for s in subjects})


def lodo(subjects: Sequence[str]) -> tuple[Fold, ...]:
    """Leave one dataset out: a fold for each dataset, in the order of their names.

    Args:
      subjects: with the name of their dataset in front, as `merged.joined` spells them.

    Raises:
      ValueError: fewer than two datasets.
    """
    return _by_subject(subjects, {s: s.partition("/")[0] for s in subjects})


def kfold(subjects: Sequence[str], k: int, seed: int) -> tuple[Fold, ...]:
    """`k` folds over subjects, balanced by their numbers of clips.

    Subjects come in a random order, the largest first; each goes to the fold that holds least.

    Raises:
      ValueError: fewer subjects than folds, or `k` < 2.
    """
    names, counts = np.unique(list(subjects), return_counts=True)
    if not 2 <= k <= len(names):
        raise ValueError(
            f"{k} folds over {len(names)} subjects: expected between 2 and the number of subjects"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    held = np.zeros(k, int)
    fold_of = {}
    for i in order:
        fold = int(np.argmin(held))
        held[fold] += counts[i]
        fold_of[str(names[i])] = f"fold{fold + 1}"
    return _by_subject(subjects, fold_of)


def given(subjects: Sequence[str], fold_of: dict[str, str]) -> tuple[Fold, ...]:
    """The folds of a file: subject -> fold name.

    Raises:
      ValueError: a subject without a fold, or a single fold.
    """
    missing = sorted(set(subjects) - set(fold_of))
    if missing:
        raise ValueError(f"no fold given for subject(s) {', '.join(missing)}")
    return _by_subject(subjects, fold_of)


def cross(name: str, train: Sequence[int], test: Sequence[int]) -> tuple[Fold, ...]:
    """A single fold: train on one dataset's clips, test on another's."""
    return (Fold(name, 0, np.array(train, np.int32), np.array(test, np.int32)),)


def everybody(clips: int) -> tuple[Fold, ...]:
    """A single fold that trains on all clips and tests on none."""
    return cross("all", range(clips), ())


def hold_out(fold: Fold, subjects: Sequence[str], share: float, seed: int) -> Fold:
    """`fold` with some of its training subjects, drawn by seed, moved to `inner`.

    As many subjects are moved as fit into `share` of the clips, but at least one.

    Raises:
      ValueError: fewer than two training subjects.
    """
    names, counts = np.unique([subjects[i] for i in fold.train], return_counts=True)
    if len(names) < 2:
        raise ValueError(
            f"fold {fold.name} has {len(names)} training subject(s): "
            "holding some out needs at least two"
        )
    order = np.random.default_rng([seed, fold.number]).permutation(len(names))
    taken = max(
        1, int(np.searchsorted(np.cumsum(counts[order]), share * counts.sum(), side="right"))
    )
    held = set(names[order[:taken]])
    is_held = np.array([subjects[i] in held for i in fold.train])
    return dataclasses.replace(fold, train=fold.train[~is_held], inner=fold.train[is_held])


def _by_subject(subjects: Sequence[str], fold_of: dict[str, str]) -> tuple[Fold, ...]:
    of_clip = np.array([fold_of[s] for s in subjects])
    names = sorted(set(of_clip.tolist()))
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} fold(s): at least two are needed, each with its own subjects"
        )
    return tuple(
        Fold(
            name,
            number,
            np.flatnonzero(of_clip != name).astype(np.int32),
            np.flatnonzero(of_clip == name).astype(np.int32),
        )
        for number, name in enumerate(names)
    )


# -------------------------------------------------------------------------- which clip is tested


def tested_by(all_folds: Sequence[Fold]) -> dict[int, str]:
    """Index of each clip that some fold tests -> that fold's name, in the order of the clips."""
    return dict(sorted((int(i), fold.name) for fold in all_folds for i in fold.test))


def fold_of(clips: Sequence[Clip], all_folds: Sequence[Fold]) -> dict[str, str]:
    """Subject -> name of the fold that tests it, in the order of the subjects."""
    return dict(sorted((clips[i].subject, name) for i, name in tested_by(all_folds).items()))


def write_file(path: pathlib.Path, folds_of_subjects: Mapping[str, str]) -> None:
    """What `fold_of` found, as a file that `read_file` reads."""
    with files.whole(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "fold"), *folds_of_subjects.items()])


def read_file(path: pathlib.Path) -> dict[str, str]:
    """Subject -> fold name from a CSV file with the header `subject,fold`.

    Raises:
      UserError: there is no such file, or it is not one; or a subject has no fold, or several.
    """
    expected = "expected a CSV file with the header subject,fold"
    try:
        # Spreadsheets write a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        found = [(row["subject"].strip(), row["fold"].strip()) for row in rows]
    except OSError as error:
        raise UserError(
            "[folds_file={path}]: {error}; {expected}",
            path=path,
            error=error.strerror,
            expected=expected,
        ) from None
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error):
        raise UserError(
            "[folds_file={path}]: {expected} and a row a subject", path=path, expected=expected
        ) from None

    fold_of: dict[str, str] = {}
    for subject, fold in found:
        if not subject or not fold:
            raise UserError(
                "[folds_file={path}]: a row has subject {subject!r} and fold {fold!r}; give both a "
                "name, or leave the row out",
                path=path,
                subject=subject,
                fold=fold,
            )
        if fold_of.setdefault(subject, fold) != fold:
            raise UserError(
                "[folds_file={path}]: subject {subject} is in fold {first} and in fold {second}; "
                "leave one of these rows out",
                path=path,
                subject=subject,
                first=fold_of[subject],
                second=fold,
            )
    return fold_of
