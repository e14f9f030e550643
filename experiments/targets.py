"""What finetune.py and evaluate.py share: from a run's configuration to its clips, folds and members."""

import csv
import pathlib

import cli
import jax
import numpy as np

from ma2mi_jax import datasets, faces, folds, pipeline, results
from ma2mi_jax.errors import UserError
from ma2mi_jax.finetune import Member


def read_target(target):
    """The Source of a configuration's `target` entry."""
    with cli.reading("reading clips") as progress:
        return datasets.read_target(
            target["name"],
            pathlib.Path(target["data_root"]),
            cache=cli.cache_dir(),
            size=target["size"],
            subjects=target["subjects"],
            clips_per_subject=target["clips_per_subject"],
            amplitude=target["amplitude"],
            seed=target["data_seed"],
            annotations=target["annotations"],
            detector=faces.detector(target["detector"], target["detector_model"]),
            progress=progress,
        )


def load(source, size):
    """Onset/apex pairs and labels, on the device."""
    with cli.progress("loading pairs", len(source.clips)) as advance:
        frames, replaced = pipeline.load_pairs(source.clips, size, lambda done: advance(completed=done))
    label = np.array([clip.label for clip in source.clips], np.int32)
    return jax.device_put({"frames": frames, "label": label}), replaced


def make_folds(protocol, clips):
    """The folds of a configuration's `protocol` entry."""
    subjects = [clip.subject for clip in clips]
    try:
        if protocol["folds_file"]:
            return folds.given(subjects, read_folds_file(pathlib.Path(protocol["folds_file"])))
        if protocol["name"] == "kfold":
            return folds.kfold(subjects, protocol["k"], protocol["seed"])
        return folds.loso(subjects)
    except ValueError as error:
        raise UserError(f"--protocol={protocol['name']}: {error}") from None


def read_folds_file(path):
    """Subject -> fold name from a CSV file with the header `subject,fold`."""
    try:
        with path.open(newline="") as file:
            return {row["subject"].strip(): row["fold"].strip() for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise UserError(f"--folds-file={path}: no such file; expected a CSV file with the header subject,fold") from None
    except (KeyError, AttributeError):
        raise UserError(f"--folds-file={path}: expected a CSV file with the header subject,fold and a row a subject") from None


def members_of(seeds, all_folds):
    """Every seed's every fold."""
    return [Member(seed, fold) for seed in seeds for fold in all_folds]


def predictions_of(clips, all_folds, seeds, probabilities):
    """Pooled probabilities (seeds, clips, classes) with the fold that tested each clip."""
    tested_by = {int(i): fold.name for fold in all_folds for i in fold.test}
    return results.Predictions(clips, [tested_by[i] for i in range(len(clips))], seeds, probabilities)
