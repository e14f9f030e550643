"""What the scripts that make or read fine-tuning runs share: from clips to the device, folds, members, and finished runs."""

import csv
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import cli
import jax
import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import predictions as results
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.reproduction import plans
from ma2mi_jax.runs import checkpoint
from ma2mi_jax.training import finetuning, folds, members, pretraining
from ma2mi_jax.training import protocol as loso
from ma2mi_jax.training.members import Member

INNER = 0.2  # share of the training clips that --select=inner holds out
ON_DEVICE = 0.3  # of a device's memory that the clips may take; more stay on the host


def load(source, size, mesh=None, vae_params=None):
    """Onset/apex pairs and labels, on the device (on each of `mesh`) or, where they would crowd it, on the host; and what was replaced."""
    with cli.progress("loading pairs", len(source.clips)) as advance:
        frames, replaced = pipeline.load_pairs(
            source.clips, size, lambda done: advance(completed=done)
        )
    data = {"frames": frames, "label": np.array([clip.label for clip in source.clips], np.int32)}
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)
    if frames.nbytes < ON_DEVICE * memory:
        data = members.placed(data, mesh)
    else:
        cli.log(
            f"{frames.nbytes / 1e9:.1f} GB of pairs stay on the host; each step takes what it needs along"
        )
    return data | (
        {} if vae_params is None else {"vae": members.placed(vae_params, mesh)}
    ), replaced


def load_autoencoder(vae, expected):
    """Parameters of the autoencoder `vae`, which must be the one of the pre-training run.

    Raises:
      UserError: there is none, or it is another one.
    """
    _, params = diffusers.load(vae)
    if expected and autoencoder.fingerprint(params) != expected:
        raise UserError(
            f"--vae={vae}: other weights than those the pre-training in --init ran with; give the same ones"
        )
    return params


def make_folds(protocol, clips):
    """The folds of a configuration's `protocol` entry, with clips held out from training where the epoch is chosen on them."""
    subjects = [clip.subject for clip in clips]
    try:
        if protocol["folds_file"]:
            found = folds.given(subjects, read_folds_file(pathlib.Path(protocol["folds_file"])))
        elif protocol["name"] == "cross":
            train, test = protocol["train"], protocol["test"]
            sides = [
                [i for i, subject in enumerate(subjects) if subject.startswith(f"{name}/")]
                for name in (train, test)
            ]
            found = folds.cross(f"{train} to {test}", *sides)
        elif protocol["name"] == "kfold":
            found = folds.kfold(subjects, protocol["k"], protocol["seed"])
        else:
            found = folds.loso(subjects)
        if protocol.get("select") == "inner":
            found = tuple(folds.hold_out(fold, subjects, INNER, protocol["seed"]) for fold in found)
    except ValueError as error:
        raise UserError(f"--protocol={protocol['name']}: {error}") from None
    return found


def read_folds_file(path):
    """Subject -> fold name from a CSV file with the header `subject,fold`."""
    try:
        with path.open(
            newline="", encoding="utf-8-sig"
        ) as file:  # spreadsheets write a byte-order mark
            return {row["subject"].strip(): row["fold"].strip() for row in csv.DictReader(file)}
    except OSError as error:
        raise UserError(
            f"--folds-file={path}: {error.strerror}; expected a CSV file with the header subject,fold"
        ) from None
    except (KeyError, AttributeError, UnicodeDecodeError):
        raise UserError(
            f"--folds-file={path}: expected a CSV file with the header subject,fold and a row a subject"
        ) from None


def tested_by(all_folds):
    """Index of each clip that some fold tests -> that fold's name, in the order of the clips."""
    return dict(sorted((int(i), fold.name) for fold in all_folds for i in fold.test))


def fold_of(clips, all_folds):
    """Subject -> name of the fold that tests it, in the order of the subjects."""
    return dict(sorted((clips[i].subject, name) for i, name in tested_by(all_folds).items()))


def write_folds(path, folds_of_subjects):
    """What `fold_of` found, as a file that --folds-file reads."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "fold"), *folds_of_subjects.items()])


def members_of(seeds, all_folds):
    """Every seed's every fold."""
    return [Member(seed, fold) for seed in seeds for fold in all_folds]


def predictions_of(clips, all_folds, seeds, probabilities):
    """Probabilities (..., S, clips, classes) as Predictions of the clips that some fold tests, each with that fold's name."""
    tested = tested_by(all_folds)
    return results.Predictions(
        [clips[i] for i in tested],
        list(tested.values()),
        seeds,
        probabilities[..., list(tested), :],
    )


def print_absent(summary):
    """Says which classes count as 0 in UF1 because nothing of them is there."""
    for name in summary["absent_classes"]:
        cli.out.print(
            f"{name}: neither labelled nor predicted; it counts as 0 in UF1", markup=False
        )


# ------------------------------------------------------------------------------------------------------------------- finished runs


def read_record(path, script, what, flag):
    """What config.json says of a finished run of experiments/`script`.py.

    Args:
      what: the run's kind in words.

    Raises:
      UserError: no such run, or an unfinished one.
    """
    record = files.read_json(path / "config.json")
    if script not in record["config"]:
        raise UserError(
            f"{flag}={path}: not a {what} run; expected a folder made by experiments/{script}.py"
        )
    if not (path / plans.RESULTS[script]).exists():
        raise UserError(
            f"{flag}={path}: that {what} is not finished; run its command again to finish it: python {record['command']}"
        )
    return record


def read_pretrained(path, flag="--run") -> tuple[dict[str, Any], pretraining.PretrainState]:
    """The record (config.json) and the last state, on one device, of a finished run of experiments/pretrain.py.

    Raises:
      UserError: no such run, or an unfinished one.
    """
    record = read_record(path, "pretrain", "pre-training", flag)
    config = pretraining.config_from_json(record["config"]["pretrain"])
    shapes = jax.eval_shape(lambda: pretraining.init(config, jax.random.key(0)))
    with checkpoint.manager(path / "checkpoints") as checkpoints:
        return record, checkpoint.restore(checkpoints, shapes)


@dataclasses.dataclass(frozen=True)
class Run:
    """A fine-tuning run in its folder `path`: `record` (its configuration as JSON), `config`, `classes` (names), and `members` (seed, fold
    name) in the order in which they were trained."""

    path: pathlib.Path
    record: dict[str, Any]
    config: finetuning.Config
    classes: list[str]
    members: list[tuple[int, str]]


def read_run(path):
    """A finished run of experiments/finetune.py; reads no clips.

    Raises:
      UserError: no such run, or an unfinished one.
    """
    record = read_record(path, "finetune", "fine-tuning", "--run")["config"]
    found = files.read_json(path / "results.json")
    return Run(
        path,
        record,
        finetuning.config_from_json(record["finetune"]),
        found["classes"],
        [tuple(m) for m in found["members"]],
    )


def saved_members(run) -> Iterator[tuple[tuple[int, str], Any, Any]]:
    """Each member (seed, fold name) of a finished run with its `params` {miacnet, classifier} and `batch_stats`."""
    stand_ins = [
        Member(seed, folds.Fold(name, 0, np.zeros(1, int), np.zeros(1, int)))
        for seed, name in run.members
    ]
    parts = loso.chunks(stand_ins, run.record["fold_chunk"])
    for part, states in zip(parts, loso.saved(run.config, parts, run.path), strict=True):
        for k, member in enumerate(part):
            one = jax.tree.map(lambda x: x[k], (states.params, states.batch_stats))  # noqa: B023
            yield (member.seed, member.fold.name), *one
