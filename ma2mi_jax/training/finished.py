"""Finished runs read back: a pre-training's last state, a fine-tuning's kept weights."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, TypedDict, TypeVar

import jax
import numpy as np

from ma2mi_jax import files, schema
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint, folder
from ma2mi_jax.training import finetuning, pretraining, protocol, run_files
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.members import Member
from ma2mi_jax.training.run_files import RESULTS, Stored

WORDS = {"pretrain": "pre-training", "finetune": "fine-tuning"}


Config = TypeVar("Config")


class Trained(TypedDict):
    """What `results.json` says about the members: seed and fold of each."""

    classes: list[str]
    members: list[tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A finished pre-training: its folder, config.json, configuration and last state."""

    path: pathlib.Path
    stored: Stored
    config: pretraining.Config
    state: pretraining.PretrainState


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """A finished fine-tuning.

    Attributes:
      path, stored, config: its folder, config.json and configuration.
      classes: names.
      members: (seed, fold name) in the order in which they were trained.
    """

    path: pathlib.Path
    stored: Stored
    config: finetuning.Config
    classes: list[str]
    members: list[tuple[int, str]]

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """What was read: one dataset or several, where they lay then."""
        return tuple(DatasetSpec(**entry) for entry in self.stored.resolved["datasets"])


def read_stored(path: pathlib.Path, script: str) -> Stored:
    """config.json of a finished run.

    Args:
      script: what must have made it, `pretrain` or `finetune`.

    Raises:
      UserError: no such run, or an unfinished one.
    """
    stored = run_files.read(path)
    known = {"path": path, "what": WORDS[script], "script": script}
    if stored.script != script:
        raise UserError(
            "[run={path}]: not a {what} run; expected a folder made by {script}.py",
            **known,
        )
    if not (path / RESULTS[script]).exists():
        raise UserError(
            "[run={path}]: that {what} is not finished; "
            "run its command again to finish it: {command}",
            command=folder.typed_again(stored.command),
            **known,
        )
    return stored


def _networks(path: pathlib.Path, stored: Stored, kind: type[Config]) -> Config:
    """The configuration of the networks in a run's config.json."""
    try:
        return schema.from_json(kind, stored.resolved["config"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "{path}/config.json: not the networks of a run ({error!r}); copy the file again",
            path=path,
            error=error,
        ) from None


def read_pretrained(path: pathlib.Path) -> Pretrained:
    """A finished pre-training with its last state, on one device. Raises as `read_stored`."""
    stored = read_stored(path, "pretrain")
    config = _networks(path, stored, pretraining.Config)
    shapes = jax.eval_shape(lambda: pretraining.init(config, jax.random.key(0)))
    state = checkpoint.restore(path / checkpoint.FOLDER, config.steps, shapes)
    return Pretrained(path, stored, config, state)


def read_finetuned(path: pathlib.Path) -> Finetuned:
    """A finished fine-tuning; reads no clips and no weights. Raises as `read_stored`."""
    stored = read_stored(path, "finetune")
    config = _networks(path, stored, finetuning.Config)
    found = files.read_json(path / RESULTS["finetune"], shape=Trained)
    members = [(seed, fold) for seed, fold in found["members"]]
    return Finetuned(path, stored, config, found["classes"], members)


def read_with_weights(path: pathlib.Path) -> Finetuned:
    """As `read_finetuned`. Raises also where the folds' weights were not kept."""
    run = read_finetuned(path)
    check_kept(run)
    return run


def check_kept(run: Finetuned) -> None:
    """Raises UserError if the run was not to keep its folds' weights."""
    asked = run.stored.asked
    if asked and not asked.keep_checkpoints and not (run.path / checkpoint.FOLDER).exists():
        raise UserError(
            "[run={path}]: has no weights, for it was not to keep its folds' checkpoints "
            "([keep_checkpoints=false]); for weights run it again without that and with "
            "[overwrite]: {command}",
            path=run.path,
            command=folder.typed_again(run.stored.command),
        )


def saved_members(run: Finetuned) -> Iterator[tuple[tuple[int, str], Any, Any]]:
    """Each member (seed, fold name) with its `params` {miacnet, classifier} and `batch_stats`.

    Raises:
      UserError: they were not kept, or a checkpoint is damaged.
    """
    check_kept(run)
    no_clips = np.zeros(1, int)
    stand_ins = [Member(seed, Fold(name, 0, no_clips, no_clips)) for seed, name in run.members]
    parts = protocol.chunks(stand_ins, run.stored.resolved["fold_chunk"])
    for members, states in zip(parts, protocol.saved(run.config, parts, run.path), strict=True):
        weights = (states.params, states.batch_stats)
        for k, member in enumerate(members):
            params, batch_stats = _one(weights, k)
            yield (member.seed, member.fold.name), params, batch_stats


@jax.jit
def _one(stacked: Any, k: int) -> Any:
    """Entry `k` of a stacked tree."""
    return jax.tree.map(lambda x: x[k], stacked)
