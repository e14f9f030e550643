"""Which runs lie below a folder, how far each is, and what it found. Nothing is trusted: a damaged
run is listed as one, and whatever is no run is passed over."""

import contextlib
import dataclasses
import datetime
import math
import os
import pathlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ma2mi_jax import files, schema
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint, lock
from ma2mi_jax.runs.folder import CONFIG, is_of_a_run, typed_again
from ma2mi_jax.runs.log import METRICS
from ma2mi_jax.training import protocol, run_files
from ma2mi_jax.training.run_files import RESULTS

MADE_BY_A_RUN = (checkpoint.FOLDER, METRICS, *RESULTS.values())  # beside a config.json
SCORES = ("accuracy", "uf1", "uar")
UNFIT = (UserError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)


State = Literal["finished", "running", "stopped", "damaged"]
STATES: tuple[State, ...] = typing.get_args(State)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A run in a list.

    Attributes:
      folder: where it lies.
      script: `pretrain` or `finetune`; empty if that cannot be read.
      state: `finished`, `running` (another process is at work there), `stopped` (the same command
        goes on), or `damaged`.
      note: how far a running or stopped run is, what of it is damaged, or why there is no score.
      scores: of a fine-tuning accuracy, UF1 and UAR; of a pre-training the last `loss_rec` as a
        share of the copy baseline (`copy_share`), or MAER's accuracy in training.
      n: clips that were scored, or trained on.
      made: when the run began, local time to the second, ISO 8601.
      commit: of the code, or its version; empty of runs that did not keep it.
      command: the words that make it, as a person types them.
    """

    folder: pathlib.Path
    script: str
    state: State
    note: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    n: int | None = None
    made: str = ""
    commit: str = ""
    command: str = ""


def below(folder: pathlib.Path) -> list[Listed]:
    """The runs in a folder, at any depth, or the run that it is; the earliest first.

    Raises:
      UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            "{folder}: no such folder; give one that holds runs, at any depth", folder=folder
        )
    return sorted(_walk(folder), key=lambda run: (run.made, str(run.folder)))


def _walk(folder: pathlib.Path) -> Iterator[Listed]:
    for place, inner, names in os.walk(folder):  # what may not be entered is passed over
        inner.sort()
        if CONFIG in names and (run := look(pathlib.Path(place))):
            inner.clear()  # a run holds no other run
            yield run


def look(folder: pathlib.Path) -> Listed | None:
    """What lies in a folder with a config.json; None if it is no run."""
    file = folder / CONFIG
    try:
        record = files.read_json(file, shape=dict[str, Any])
    except UserError as error:
        if any((folder / name).exists() for name in MADE_BY_A_RUN):
            return _damaged(folder, error)
        return None
    if not is_of_a_run(record):
        return None

    known = {"made": _made(file, record), "commit": _text(record, "commit")}
    known["command"] = typed_again(_text(record, "command"))
    try:
        stored = run_files.read(folder)
        known["script"] = stored.script
        if (folder / RESULTS[stored.script]).exists():
            return Listed(folder, state="finished", **known, **_found(folder, stored.script))
        state = "running" if lock.is_held(folder) else "stopped"
        return Listed(folder, state=state, note=_how_far(folder, stored), **known)
    except UNFIT as error:
        return _damaged(folder, error, **known)


def _damaged(folder: pathlib.Path, error: Exception, **known: str) -> Listed:
    told = str(error) if isinstance(error, UserError) else f"{CONFIG} or a result: {error!r}"
    return Listed(folder, state="damaged", note=told, **{"script": "", **known})


def _text(record: Mapping[str, Any], name: str) -> str:
    return record[name] if isinstance(record.get(name), str) else ""


def _made(file: pathlib.Path, record: Mapping[str, Any]) -> str:
    """When the run began; earlier versions kept no date, so it is that of the file."""
    with contextlib.suppress(OSError):
        written = datetime.datetime.fromtimestamp(file.stat().st_mtime)
        return _text(record, "made") or written.isoformat(timespec="seconds")
    return ""


def _found(folder: pathlib.Path, script: str) -> dict[str, Any]:
    """`scores`, `n` and `note` of a finished run."""
    record = run_files.read_results(folder, script)
    if script == "finetune":
        scores = {name: record.get(name) for name in SCORES}
        note = "no score: trained on all subjects" if "no_score" in record else ""
        return {"scores": _numbers(scores), "n": _count(record.get("n")), "note": note}
    final = _numbers(record.get("final") or {})
    scores = {name: final[name] for name in ("accuracy",) if name in final}
    if final.get("copy_baseline"):
        scores["copy_share"] = final["loss_rec"] / final["copy_baseline"]
    return {"scores": scores, "n": _count(record.get("clips_used"))}


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of what was read."""
    number = {name: value for name, value in found.items() if not schema.mismatch(value, float)}
    return {name: value for name, value in number.items() if math.isfinite(value)}


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _how_far(folder: pathlib.Path, stored: run_files.Stored) -> str:
    """What of an unfinished run is saved, in words."""
    saved, resolved = folder / checkpoint.FOLDER, stored.resolved
    if stored.script == "pretrain":
        steps = _saved_steps(saved)
        return f"at step {max(steps)} of {resolved['config']['steps']}" if steps else _NOTHING

    folds = max(1, len(set(resolved.get("folds", {}).values())))
    members = list(range(folds * len(resolved["seeds"])))
    parts = protocol.chunks(members, resolved["fold_chunk"])
    done = sum(len(parts[number]) for number in _saved_steps(saved))
    epochs = [max(_saved_steps(each), default=0) for each in saved.glob("unfinished-*")]
    told = [f"{done} of {len(members)} folds done"] if done else []
    if any(epochs):
        told.append(f"the next at epoch {max(epochs)} of {resolved['config']['epochs']}")
    return ", ".join(told) or _NOTHING


_NOTHING = "nothing saved yet"


def _saved_steps(folder: pathlib.Path) -> list[int]:
    """The numbers of the checkpoints in a folder, which may not be there."""
    with contextlib.suppress(OSError):
        return sorted(int(each.name) for each in folder.iterdir() if each.name.isdecimal())
    return []
