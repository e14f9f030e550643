"""How far a plan is: what lies in each run's folder, how long the rest takes, making the rest."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ma2mi_jax.errors import UserError
from ma2mi_jax.reproduction.plans import Planned
from ma2mi_jax.runs import lock
from ma2mi_jax.runs.folder import CONFIG
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finetuning_run, initial, pretraining_run, run_files
from ma2mi_jax.training.run_config import Run
from ma2mi_jax.training.run_files import RESULTS, Stored

SETTINGS = {"pretrain": pretraining_run.settings_of, "finetune": finetuning_run.settings_of}
LOCKS = "locks"  # folder of a plan: the files that a process holds while it makes a run
LOOKING = 1.0  # seconds between two looks at the runs that other processes make


@dataclasses.dataclass(frozen=True)
class State:
    """What is there of a run.

    Attributes:
      kind: `finished`, `unfinished`, `absent`, or `other`: its folder holds something else.
      why: what makes it `other`, else "".
    """

    kind: Literal["finished", "unfinished", "absent", "other"]
    why: str = ""

    @property
    def waits(self) -> bool:
        """Whether the run is still to be made, or to go on."""
        return self.kind in ("absent", "unfinished")


def look(
    planned: Planned, out: pathlib.Path, from_command: Callable[[str], Run] | None = None
) -> State:
    """What lies in a run's folder below `out`.

    Args:
      from_command: makes a run object of a stored command, for runs that were made before
        config.json held one. Without it such a run counts as another one.
    """
    folder = out / planned.folder
    if not folder.is_dir() or not any(folder.iterdir()):
        return State("absent")
    give = f"delete that folder, or give another folder of runs than {out}"
    try:
        stored = run_files.read(folder)
        start = None
        if planned.init:
            if not (out / planned.init.folder / CONFIG).exists():
                gone = f"{folder}: its pre-training {planned.init.folder} is gone"
                return State("other", f"{gone}; {give}")
            start = run_files.read(out / planned.init.folder)
        why = mismatch(planned.placed(out), stored, start, from_command)
    except UserError as error:
        return State("other", str(error))
    if why:
        return State("other", f"{folder}: a run of another configuration is there ({why}); {give}")
    return State("finished" if (folder / RESULTS[stored.script]).exists() else "unfinished")


def mismatch(
    wanted: Run,
    stored: Stored,
    start: Stored | None,
    from_command: Callable[[str], Run] | None = None,
) -> str:
    """How a stored run differs from the one that is wanted; "" if it does not.

    What was asked is compared, and what no field of a run decides: the sizes of the networks, the
    range of τ, and the like. If these are others than today's, the numbers are not those of a run
    made now.

    Args:
      start: the pre-training that `wanted` starts from, None without one.
      from_command: as for `look`.
    """
    if stored.script != wanted.script:
        return f"it is no run of {wanted.script}.py"
    expected = start.resolved if start else "none"
    if stored.script == "finetune" and stored.resolved["init"] != expected:
        return "it starts from another pre-training"
    asked = stored.asked
    if asked is None:
        if from_command is None:
            return "it was made by an earlier version"
        asked = run_files.as_meant(from_command(stored.command), stored.resolved)
    if stored.script == "finetune":  # the pre-training is the same, wherever it lies
        asked = dataclasses.replace(asked, init=wanted.init)
    if asked != wanted:
        return run_files.first_difference(asked, wanted)
    there = stored.resolved["config"]
    there = {**there, **there["architecture"]}
    for name, now in json.loads(json.dumps(_settings(wanted))).items():  # tuples become lists
        if there.get(name) != now:
            return f"{name} is {there.get(name)!r} there, {now!r} here"
    return ""


def _settings(run: Run) -> dict[str, Any]:
    """What the code of today puts into the configuration of a run, but for what data decide."""
    found = SETTINGS[run.script](run)
    if run.script == "finetune" and run.init == "none":  # else the pre-training has the networks
        found["architecture"] = initial.from_scratch(run)
    if "architecture" in found:
        found |= dataclasses.asdict(found.pop("architecture"))
    return found


# ----- time ---------------------------------------------------------------------------------------


def finished_results(
    plan: Iterable[Planned], out: pathlib.Path, look: Callable[[Planned], State]
) -> dict[Planned, Mapping[str, Any]]:
    """Run -> content of its result file, for those that are finished."""
    return {
        planned: run_files.read_results(out / planned.folder, planned.run.script)
        for planned in plan
        if look(planned).kind == "finished"
    }


def seconds(planned: Planned, finished: Mapping[Planned, Mapping[str, Any]]) -> float | None:
    """How long a run will take at the rate of finished runs of its kind.

    Args:
      finished: runs of the same plan, with the content of their result files.

    Returns:
      Seconds; None if no run of its kind is finished.
    """
    alike = [result for other, result in finished.items() if _kind(other) == _kind(planned)]
    if not alike:
        return None
    if planned.run.script == "finetune":
        # A resumed run's seconds are those of its last session alone.
        return max(result["seconds"] for result in alike)
    spent, made = (sum(r[name] for r in alike) for name in ("seconds", "steps_this_session"))
    same_data = [
        result["steps"]
        for other, result in finished.items()
        if other.run.script == "pretrain" and other.run.dataset == planned.run.dataset
    ]
    steps = planned.run.steps or max(same_data, default=None)
    return None if steps is None else steps * spent / max(1, made)


def _kind(planned: Planned) -> tuple:
    """What a run's rate depends on."""
    run = planned.run
    if run.script == "finetune":
        return (run.script, run.dataset.name, run.keep_reconstruction)
    return (run.script, run.objective, run.space)


def time_left(waiting: Sequence[Planned], estimates: Mapping[Planned, float | None]) -> str:
    """How long these runs will take, and for how many of them that is not known."""
    known = [estimates[run] for run in waiting if estimates.get(run) is not None]
    unknown = len(waiting) - len(known)
    parts = []
    if known:
        rate = "at the rate of finished ones"
        parts.append(f"{duration(sum(known))} for {len(known)} of them, {rate}")
    if unknown:
        parts.append(f"unknown for {unknown}, no run of whose kind is finished")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Whole seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


# ----- the rest -----------------------------------------------------------------------------------


def execute(
    todo: Sequence[Planned],
    out: pathlib.Path,
    call: Callable[[Run], int],
    *,
    look: Callable[[Planned], State],
    shown: Callable[[Run], str],
    estimate: Callable[[], Mapping[Planned, float | None]] = dict,
    listener: Listener = SILENT,
) -> dict[Planned, str]:
    """Makes what is not there, in order. A run that fails stops only those that start from it.

    Several processes may work on one plan: each makes what no other one is making.

    Args:
      call: makes a run, in a process of its own; its exit code.
      shown: a run's command, as a person types it.
      estimate: called after each run that was made: what runs take, in seconds, where known.

    Returns:
      Run -> "" or why it is not finished.
    """
    outcome: dict[Planned, str] = {}
    told: set[Planned] = set()  # where another process is at work

    def settled(number: int, planned: Planned) -> str:
        """Makes a run if that is to be done, and returns what became of it."""
        state = look(planned)
        if state.kind == "other":
            return state.why
        if state.kind == "finished":
            return ""
        if planned.init and outcome[planned.init]:
            return f"skipped, since {planned.init.folder} is not finished"
        run = planned.placed(out)
        listener.log(f"[{number}/{len(todo)}] {shown(run)}")
        code = call(run)
        made = look(planned).kind == "finished"
        if waiting := [each for each in todo[number:] if look(each).waits]:
            left = time_left(waiting, estimate())
            listener.log(f"{len(waiting)} runs to make; {left}")
        return "" if made else f"failed with exit code {code}"

    while len(outcome) < len(todo):
        before = len(outcome)
        for number, planned in enumerate(todo, 1):
            if planned in outcome or (planned.init and planned.init not in outcome):
                continue
            folder = out / planned.folder
            with lock.turn(out / LOCKS / f"{planned.folder}.lock") as ours:
                if ours and not lock.is_held(folder):
                    outcome[planned] = settled(number, planned)
                    if outcome[planned]:
                        listener.log(f"[{number}/{len(todo)}] {outcome[planned]}")
                elif planned not in told:
                    told.add(planned)
                    listener.log(f"[{number}/{len(todo)}] another process makes {folder}")
        if len(outcome) == before:
            time.sleep(LOOKING)
    return outcome
