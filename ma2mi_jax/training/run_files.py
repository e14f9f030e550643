"""What is read again of a run's folder: its config.json, and the results that say it is finished.

`config.json` has two parts. *asked* is the run object itself (`run_config.py`): what a person
wants. *resolved* is what data and device made of it: steps, classes, precision, and fingerprints
of what was read. A run is gone on with if *resolved* is the same; it is the run of a plan if
*asked* is the same.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

from ma2mi_jax import files, schema
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.runs import folder
from ma2mi_jax.training import folds, model_folder
from ma2mi_jax.training.run_config import KINDS, TESTED, PretrainRun, Run, check_used

RESULTS = {"pretrain": "summary.json", "finetune": "results.json"}  # says that a run is finished


class Summary(TypedDict):
    """What is read again of a pre-training's `summary.json`."""

    seconds: float
    steps: int
    steps_this_session: int
    versions: dict[str, Any]


class Results(TypedDict):
    """What is read again of a fine-tuning's `results.json`."""

    seconds: float
    versions: dict[str, Any]
    classes: list[str]
    protocol: str
    target: str
    set_aside: list[Any]


SHAPES = {"pretrain": Summary, "finetune": Results}
FORMAT = 3  # of config.json; 1 had no part `asked`; up to 2 nothing was said of τ


@dataclasses.dataclass(frozen=True)
class Stored:
    """A run's config.json.

    Attributes:
      script: `pretrain` or `finetune`.
      asked: the run; None of a run that was made before there was such an object.
      resolved: what data and device made of it, as JSON.
      command: the words that made it, as a person types them.
    """

    script: str
    asked: Run | None
    resolved: dict[str, Any]
    command: str


def to_json(run: Run, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json, but for the command and the versions."""
    return {
        "format": FORMAT,
        "script": run.script,
        "asked": dataclasses.asdict(run),
        "resolved": dict(resolved),
    }


def read(path: pathlib.Path) -> Stored:
    """The config.json of the run in folder `path`, also of runs made before it had two parts.

    Raises:
      UserError: there is none, or it is not one of this package.
    """
    file = path / folder.CONFIG
    record = files.read_json(file, shape=dict[str, Any])
    try:
        if record.get("format") == model_folder.FORMAT:
            raise UserError(
                "[run={path}]: is a model folder, not a run; give it as [model]", path=path
            )
        if "asked" not in record:
            return _read_first_format(record)
        if record["format"] > FORMAT:
            raise files.newer(file, record["format"], FORMAT)
        asked = schema.from_json(KINDS[record["script"]], record["asked"])
        if record["format"] < 3:
            asked = as_meant(asked, record["resolved"])
        return Stored(record["script"], asked, record["resolved"], record["command"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            "{file}: not the configuration of a run ({error!r}); expected a folder that "
            "pretrain.py or finetune.py made",
            file=file,
            error=error,
        ) from None


def read_results(path: pathlib.Path, script: str) -> dict[str, Any]:
    """The result file of the finished run in folder `path`.

    Raises:
      UserError: there is none, or it is not one.
    """
    return files.read_json(path / RESULTS[script], shape=SHAPES[script])


def as_meant(asked: Run, resolved: Mapping[str, Any]) -> Run:
    """A run object from before format 3, which could not say whether τ mirrors; it always did."""
    if isinstance(asked, PretrainRun):
        return dataclasses.replace(asked, tau_flip=resolved["config"]["flip"])
    return asked


def _read_first_format(record: Mapping[str, Any]) -> Stored:
    """Format 1 kept no object: `config` held what is `resolved` now, under other names."""
    config = record["config"]
    if "pretrain" in config:
        resolved = {**config["data"], "config": config["pretrain"]}
        return Stored("pretrain", None, resolved, record["command"])
    resolved = {name: value for name, value in config.items() if name not in ("finetune", "target")}
    target = config["target"]
    test = target.get("test")
    resolved["datasets"] = [_first_format_dataset(each) for each in (target, test) if each]
    init = config["init"]
    if isinstance(init, Mapping):
        resolved["init"] = {**init["data"], "config": init["pretrain"]}
    return Stored("finetune", None, resolved | {"config": config["finetune"]}, record["command"])


def _first_format_dataset(entry: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(DatasetSpec)}
    kept = {name: value for name, value in entry.items() if name in known}
    spec = DatasetSpec(**kept, kind="target", root=entry["data_root"])
    return dataclasses.asdict(
        dataclasses.replace(spec, root=None) if registry.is_drawn(spec) else spec
    )


def check(run: Run) -> None:
    """What can be said of a run before any long work; reads no clips and asks for no device.

    Raises:
      UserError: its folder is taken; a field makes no sense for a dataset, or is used by nothing;
        a file that it names cannot be read.
    """
    check_used(run)
    if not run.overwrite and (different := _other_there(run)):
        raise UserError(
            "[run={folder}]: another run is finished there ({different}); give another [run]",
            folder=run.folder,
            different=different,
        )
    folder.check_run(run.folder, RESULTS[run.script], run.overwrite)
    tested = getattr(run, "test_dataset", None)
    for spec in run.datasets:
        with parameters_called(**TESTED if spec == tested else {}):
            registry.check(spec)
    if run.script == "finetune" and run.compare:
        read_results(pathlib.Path(run.compare), "finetune")
    if run.script == "finetune" and run.folds_file:
        folds.read_file(pathlib.Path(run.folds_file))


def _other_there(run: Run) -> str:
    """How the finished run in the folder differs from this one; empty if none is there, or the
    same."""
    if not (run.folder / RESULTS[run.script]).exists():
        return ""
    try:
        stored = read(run.folder)
    except UserError:
        return ""
    if stored.asked is None or stored.script != run.script:
        return ""
    return first_difference(stored.asked, run)


def first_difference(there: Any, here: Any) -> str:
    """The first field that counts in which two run objects differ, in words; empty if none."""
    for field in dataclasses.fields(here):
        before, now = getattr(there, field.name), getattr(here, field.name)
        if field.compare and before != now:
            if dataclasses.is_dataclass(now):
                return first_difference(before, now)
            return f"{field.name} is {before!r} there, {now!r} here"
    return ""
