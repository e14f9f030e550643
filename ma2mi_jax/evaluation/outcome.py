"""What comes out of a fine-tuning: results.json, predictions.csv, pictures; predicting again."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.evaluation import calibration, drawing
from ma2mi_jax.evaluation import predictions as scored
from ma2mi_jax.evaluation.predictions import Predictions
from ma2mi_jax.runs import checkpoint, folder
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finetuning_run, folds, protocol
from ma2mi_jax.training.finetuning_run import Trained
from ma2mi_jax.training.finished import Finetuned, check_kept
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.members import predict_clips
from ma2mi_jax.training.run_files import RESULTS

NO_SCORE = (
    "trained on all subjects: nobody is left to test on, so there is no score; "
    "the training accuracy says nothing about other people"
)


def predictions_of(
    clips: Sequence[Clip],
    all_folds: Sequence[Fold],
    seeds: Sequence[int],
    probabilities: np.ndarray,
) -> Predictions:
    """Probabilities (..., S, clips, classes) of the clips that some fold tests, with its name."""
    tested = folds.tested_by(all_folds)
    chosen = probabilities[..., list(tested), :]
    return Predictions([clips[i] for i in tested], list(tested.values()), seeds, chosen)


def write(trained: Trained, other: Predictions | None = None) -> dict[str, Any]:
    """Scores a fine-tuning and writes its files but config.json and folds.csv.

    One that was trained on all subjects has no score, and `no_score` says why.

    Args:
      other: predictions of the run that `run.compare` names, over the same clips.

    Returns:
      The content of results.json.
    """
    if trained.run.chosen_protocol == "all":
        return _write_unscored(trained)
    run, dataset, seeds = trained.run, trained.dataset, trained.seeds
    parts, histories = trained.parts, trained.histories
    count = len(dataset.clips)

    # -------------------------------------------------------------------------------- scores
    tests = protocol.of_members(parts, histories)  # [chunk][member] (epochs, test clips, classes)
    chosen = [protocol.reported(history, run.select) for history in histories]
    counted = [
        [outputs[epoch] for outputs, epoch in zip(*chunk, strict=True)]
        for chunk in zip(tests, chosen, strict=True)
    ]

    def pooled(outputs) -> Predictions:
        probabilities = protocol.pool(parts, outputs, seeds, count)
        return predictions_of(dataset.clips, trained.folds, seeds, probabilities)

    found = pooled(counted)
    every_epoch = pooled(tests).classes
    content = scored.summary(found, dataset.classes)
    content |= {
        "calibration": calibration.of(found),
        "oracle": scored.oracle(found, every_epoch, len(dataset.classes)),
        "epoch_reported": run.select,
        "epochs_chosen": np.concatenate(chosen) + 1,
        **_made_of(trained),
    }
    if other:
        compared = scored.compare(found, other, len(dataset.classes))
        content["compare"] = {"run": str(run.compare)} | compared

    # --------------------------------------------------------------------------------- files
    path = run.folder
    scored.write_predictions(path / scored.FILE, found, dataset.classes)
    labels = np.array([clip.label for clip in dataset.clips])
    loss = np.concatenate([history.loss for history in histories], axis=1)
    accuracy = np.concatenate([history.accuracy for history in histories], axis=1)
    tested = [
        (outputs.argmax(-1) == labels[member.fold.test]).mean(-1)
        for chunk in zip(tests, parts, strict=True)
        for outputs, member in zip(*chunk, strict=True)
    ]
    counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
    tested = np.stack(tested, axis=1)
    drawing.finetuning_curves(path / "curves.png", loss, accuracy, tested, counts)
    title = (
        f"{run.target}, {content['protocol']}, from {pathlib.Path(run.init).name}: "
        f"N = {content['n']}, {len(seeds)} seed(s)\n"
        f"accuracy {content['accuracy']:.4f}, UF1 {content['uf1']:.4f}"
    )
    summed = f"\ncounts summed over {len(seeds)} seeds" if len(seeds) > 1 else ""
    drawing.confusion(path / "confusion.png", content["confusion"], dataset.classes, title + summed)
    drawing.per_subject(path / "per_subject.png", content["per_subject"], title)
    files.write_json(path / RESULTS["finetune"], content)  # last: it says that the run is finished
    if not run.keep_checkpoints:  # after it: until then a killed run goes on from them
        shutil.rmtree(path / checkpoint.FOLDER, ignore_errors=True)
    return content


def _made_of(trained: Trained) -> dict[str, Any]:
    """What results.json says of data and training, whatever the protocol."""
    run, dataset = trained.run, trained.dataset
    return {
        "target": run.target,
        "init": run.init,
        "protocol": run.shown_protocol,
        "members": [(m.seed, m.fold.name) for m in trained.members],
        "annotations": dataset.annotations,
        "set_aside": [dataclasses.asdict(s) for s in dataset.set_aside],
        "notes": dataset.notes,
        "repairs": [dataclasses.asdict(r) for r in dataset.repairs],
        "frames_replaced": [dataset.clips[i].id for i in trained.replaced],
        "seconds": round(trained.seconds, 1),
        "versions": folder.made_with(),
    }


def _write_unscored(trained: Trained) -> dict[str, Any]:
    """results.json and the curves of a fine-tuning on all subjects."""
    dataset, path = trained.dataset, trained.run.folder
    labels = [clip.label for clip in dataset.clips]
    loss, accuracy = (
        np.concatenate([getattr(history, name) for history in trained.histories], axis=1)
        for name in ("loss", "accuracy")
    )
    content = {
        "no_score": NO_SCORE,
        "n": len(labels),
        "subjects": len({clip.subject for clip in dataset.clips}),
        "classes": dataset.classes,
        "clips_of": {name: labels.count(i) for i, name in enumerate(dataset.classes)},
        "seeds": {"seeds": trained.seeds},
        "training_accuracy": accuracy[-1],
        "training_loss": loss[-1],
        **_made_of(trained),
    }
    counts = list(content["clips_of"].values())
    drawing.finetuning_curves(path / "curves.png", loss, accuracy, None, counts)
    files.write_json(path / RESULTS["finetune"], content)  # last: it says that the run is finished
    return content


def predict_again(
    run: Finetuned, listener: Listener = SILENT, roots: Mapping[str, str] | None = None
) -> Predictions:
    """Every fold's saved weights asked once more about the clips that they had not seen.

    Args:
      roots: where datasets lie now, by name, if not where the run read them.

    Raises:
      UserError: a dataset or a checkpoint is not there, or is not what it was; or other subjects
        are there than the run tested.
    """
    check_kept(run)
    resolved, config = run.stored.resolved, run.config
    roots = roots or {}
    specs = [
        dataclasses.replace(spec, root=roots.get(spec.name, spec.root)) for spec in run.datasets
    ]
    dataset = finetuning_run.read_clips(specs, config.architecture.image_size, listener)
    all_folds = finetuning_run.recorded_folds(resolved, dataset.clips)
    seeds = resolved["seeds"]
    members = finetuning_run.members_of(seeds, all_folds)
    parts = protocol.chunks(members, resolved["fold_chunk"])
    data, _ = finetuning_run.load(dataset, config.architecture.image_size, None, None, listener)
    tests = []
    with listener.progress("evaluating", len(parts)) as advance:
        for part, states in zip(parts, protocol.saved(config, parts, run.path), strict=True):
            tests.append(predict_clips(config, states, data, [m.fold.test for m in part]))
            advance()
    probabilities = protocol.pool(parts, tests, seeds, len(dataset.clips))
    return predictions_of(dataset.clips, all_folds, seeds, probabilities)
