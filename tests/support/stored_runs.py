"""Folders of runs as the scripts leave them, without any training."""

import dataclasses
import json
import pathlib
import shlex
import types

import flags
import numpy as np

from ma2mi_jax import files, schema
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.datasets import registry
from ma2mi_jax.evaluation import predictions
from ma2mi_jax.training import (
    finetuning,
    finetuning_run,
    initial,
    pretraining,
    pretraining_run,
    run_files,
)

NAMES = ["happiness", "disgust", "surprise"]
VERSIONS = {"device": "1 x cpu", "python": "3.11", "jax": "0.10", "flax": "0.12"}
RESULTS = {
    "pretrain": {"seconds": 20.0, "steps": 10, "steps_this_session": 10, "versions": VERSIONS},
    "finetune": {"seconds": 30.0, "versions": VERSIONS},
}


def resolved(run, start=None, **changes):
    """What data and device make of a run.

    Args:
      start: what is resolved of the pre-training that a fine-tuning starts from.
      changes: other values in the configuration of the networks.
    """
    if run.script == "pretrain":
        read = types.SimpleNamespace(classes=NAMES, clips=[types.SimpleNamespace(fps=25)])
        config = pretraining_run.config_of(run, read, 7, None)
        content = {"source": run.dataset.name, "clips": 12, "fingerprint": "a13a99e6b0fd7166"}
    else:
        architecture = initial.from_scratch(run)
        if start:
            config = schema.from_json(pretraining.Config, json.loads(json.dumps(start["config"])))
            architecture = config.architecture
        decided = {"architecture": architecture, "classes": len(NAMES)}
        config = finetuning.Config(**finetuning_run.settings_of(run), **decided)
        content = {"init": start or "none", "datasets": [dataclasses.asdict(run.dataset)]}
        content |= {"seeds": list(range(run.seeds)), "fold_chunk": 1}
    return content | {"config": dataclasses.asdict(dataclasses.replace(config, **changes))}


def write_config(run, start=None, **changes):
    """config.json in the folder of a run; returns what is resolved."""
    content = resolved(run, start, **changes)
    made = {"command": shlex.join([f"experiments/{run.script}.py", *flags.of(run)])}
    run.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(run.folder / "config.json", run_files.to_json(run, content) | made)
    return content


def to_first_format(folder, command=()):
    """Rewrites a config.json as it was before it held a run object.

    Args:
      command: further words of the command.
    """
    file = folder / "config.json"
    record = files.read_json(file)
    run = run_files.read(folder).asked
    there = record["resolved"]
    if run.script == "pretrain":
        content = {"data": without(there, "config"), "pretrain": there["config"]}
        given = ("preset", "space", "seed")
    else:
        content = without(there, "config", "datasets") | {"finetune": there["config"]}
        targets = [first_format_target(entry, there) for entry in there["datasets"]]
        content["target"] = targets[0] | ({"test": targets[1]} if targets[1:] else {})
        if start := there["init"] != "none" and there["init"]:
            content["init"] = {"data": without(start, "config"), "pretrain": start["config"]}
        given = ("seeds", "init")
    words = [f"experiments/{run.script}.py", *(f"--{name}={getattr(run, name)}" for name in given)]
    told = shlex.join([*words, *flags.of(run), *command])
    versions = record.get("versions", VERSIONS)
    files.write_json(file, {"config": content, "command": told, "versions": versions})


def without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


def first_format_target(entry, there):
    """A target had its root under the name of the flag, also where faces were drawn."""
    kept = without(entry, "root", "kind", "split", "clips")
    where = registry.DatasetSpec(**entry)
    size = there["config"]["architecture"]["image_size"]
    return kept | {"data_root": str(registry.located(where).resolve()), "size": size}


def write_results(folder, *, seed=0, hits=0.6, clips=12, seeds=2, target="synthetic"):
    """predictions.csv and results.json of a finished fine-tuning.

    Args:
      hits: the share of the clips that are right at least.

    Returns:
      The labels (clips,) and the predicted classes (seeds, clips).
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % len(NAMES)
    guesses = rng.random((seeds, clips)), rng.integers(0, len(NAMES), (seeds, clips))
    predicted = np.where(guesses[0] < hits, labels, guesses[1])
    probabilities = 0.1 + 0.7 * np.eye(len(NAMES), dtype=np.float32)[predicted]
    rows = [
        Clip(f"clip{i}", frames=(), subject=f"s{i // 4}", label=int(labels[i]))
        for i in range(clips)
    ]
    subjects = [clip.subject for clip in rows]
    found = predictions.Predictions(rows, subjects, list(range(seeds)), probabilities)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write_predictions(folder / "predictions.csv", found, NAMES)
    record = {
        "classes": NAMES,
        "protocol": "loso",
        "annotations": "",
        "set_aside": [],
        "epoch_reported": "last",
        "target": target,
        "members": [(s, name) for s in range(seeds) for name in dict.fromkeys(subjects)],
    }
    files.write_json(folder / "results.json", record | RESULTS["finetune"])
    return labels, predicted


class Scripts:
    """Stands in for the two scripts: called with a run, it writes what they would write.

    Attributes:
      broken: folders of runs that fail.
      killed: folders of runs in which everything ends halfway.
      called: the folders of all runs that were asked for.
    """

    def __init__(self, out, broken=(), killed=()):
        self.out, self.broken, self.killed, self.called = out, broken, killed, []

    def __call__(self, run):
        folder = run.folder.relative_to(self.out).as_posix()
        self.called.append(folder)
        start = None
        if run.script == "finetune" and run.init != "none":
            start = files.read_json(pathlib.Path(run.init) / "config.json")["resolved"]
        write_config(run, start)
        if folder in self.killed:
            raise KeyboardInterrupt
        if folder in self.broken:
            return 2
        if run.script == "finetune":
            write_results(run.folder, seed=len(folder), hits=0.5)
        else:
            files.write_json(run.folder / run_files.RESULTS["pretrain"], RESULTS["pretrain"])
        return 0
