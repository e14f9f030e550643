"""A run's folder: `config.json` says what was asked, a result file says that the run is finished.

A folder is *unfinished* until its result file is written. Only an unfinished run is resumed, and
only by a run of the same configuration.
"""

import contextlib
import datetime
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ma2mi_jax import files, versions
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint, processes
from ma2mi_jax.runs.log import METRICS

CONFIG = "config.json"
LIBRARIES = (  # numbers depend on them
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    versions.OPENCV,
    "scikit-learn",
)


def check_run(path: pathlib.Path, result: str, overwrite: bool = False) -> bool:
    """Whether an unfinished run is in the folder. Changes nothing: call it before any long work.

    Args:
      path: the run's folder.
      result: the file whose presence says that the run is finished.
      overwrite: an earlier run, finished or not, may be deleted.

    Raises:
      UserError: the folder holds a finished run, or something that is not a run.
    """
    if path.exists() and not path.is_dir():
        raise UserError("[run={path}]: is a file; choose another folder", path=path)
    if not path.is_dir() or not any(path.iterdir()):
        return False
    if why := _no_run(path, result):
        raise UserError(
            "[run={path}]: the folder is not empty, and it is not a run, for {why}; choose another "
            "folder",
            path=path,
            why=why,
        )
    if (path / result).exists() and not overwrite:
        raise UserError(
            "[run={path}]: a finished run is there ({result}); it is kept: give another [run], or "
            "[overwrite] to make the same one again",
            path=path,
            result=result,
        )
    return not overwrite


def _no_run(path: pathlib.Path, result: str) -> str:
    """Why a folder is no run of ours, so that nothing in it may be deleted; empty if it is one.

    Many programs write a config.json: so does diffusers beside its weights, and our own export.
    """
    if not (path / CONFIG).exists():
        return f"it has no {CONFIG}"
    try:
        record = files.read_json(path / CONFIG, shape=dict[str, Any])
    except UserError:  # damaged: then what a run writes beside it tells
        made = any((path / name).exists() for name in (checkpoint.FOLDER, METRICS, result))
        return "" if made else f"its {CONFIG} cannot be read, and nothing of a run is beside it"
    return "" if is_of_a_run(record) else f"its {CONFIG} is not a run's"


def is_of_a_run(record: Mapping[str, Any]) -> bool:
    """Whether the content of a config.json is a run's, also of one from before it had two parts; a
    model folder's is not, nor another program's."""
    return {"asked", "resolved"} <= record.keys() or {"config", "command"} <= record.keys()


def open_run(
    path: pathlib.Path, content: Mapping[str, Any], result: str, overwrite: bool = False
) -> bool:
    """Makes the run's folder and writes `config.json`, unless the same run is to be gone on with.

    Of several processes the first does so, and the others see to it that theirs is the same run.

    Args:
      content: of config.json, JSON-like; its part `resolved` decides the numbers.
      result, overwrite: as for `check_run`; with `overwrite` an earlier run is deleted.

    Returns:
      Whether an unfinished run of the same `resolved` is there to be resumed.

    Raises:
      UserError: as `check_run`; or the unfinished run there, or that of the first process, has
        another configuration.
    """
    content = json.loads(json.dumps(content))  # tuples become lists, as they will be read back

    def opened() -> tuple[bool, Any]:
        return _open(path, content, result, overwrite), content["resolved"]

    resuming, resolved = processes.from_first("run", opened)
    if different := first_difference(resolved, content["resolved"]):
        raise UserError(
            "process {index} would make another run than process 0 ({different}); give both the "
            "same data and weights, and the same versions of this package",
            index=processes.index(),
            different=different,
        )
    return resuming


def _open(path: pathlib.Path, content: dict[str, Any], result: str, overwrite: bool) -> bool:
    """`open_run` for the one process that does it."""
    if check_run(path, result, overwrite):
        there = files.read_json(path / CONFIG, shape=dict[str, Any])
        if "resolved" not in there:
            raise UserError(
                "[run={path}]: an unfinished run of an earlier version is there; "
                "finish it with that version, or give another [run]",
                path=path,
            )
        # runs from before 2026-11-30 do not say what their prepared frames are
        unsaid = {"prepared": content["resolved"].get("prepared")}
        different = first_difference(unsaid | there["resolved"], content["resolved"])
        if different:
            raise UserError(
                "[run={path}]: an unfinished run of another configuration is there ({different}); "
                "ask for the same to go on with it, or give another [run]",
                path=path,
                different=different,
            )
        renewed = there | content  # asked in other words, or damaged where nothing looks
        if renewed != there:
            files.write_json(path / CONFIG, renewed)
        return True

    path.mkdir(parents=True, exist_ok=True)
    for there in path.iterdir():  # and not the folder itself, which may be locked
        shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
    made = {
        "command": shlex.join(sys.argv),
        "made": datetime.datetime.now().isoformat(timespec="seconds"),
        "commit": versions.commit(),
        "versions": made_with(),
    }
    files.write_json(path / CONFIG, {**content, **made})
    return False


def as_typed(words: Sequence[str]) -> str:
    """A command as a person types it again; empty if there are no words.

    Args:
      words: the path of a script of ours, and its flags.

    Returns:
      `python PATH FLAGS`, or `ma2mi NAME FLAGS` if the script lies inside an installed package.
    """
    if not words:
        return ""
    script = pathlib.Path(words[0])
    start = ["ma2mi", script.stem] if is_installed(script) else ["python", words[0]]
    return shlex.join([*start, *words[1:]])


def typed_again(command: str) -> str:
    """The `command` in a config.json as a person types it again."""
    with contextlib.suppress(ValueError):  # quotation marks without an end
        return as_typed(shlex.split(command))
    return command


def is_installed(script: pathlib.Path) -> bool:
    """Whether a script lies inside a package, as in a wheel; a clone has it beside the package,
    whatever the clone's folder is called."""
    return (script.parent.parent / "__init__.py").is_file()


def first_difference(there: Any, here: Any, name: str = "") -> str:
    """Where two contents of JSON differ, in words; empty if they are the same."""
    if isinstance(there, dict) and isinstance(here, dict):
        inner = (
            first_difference(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
            for key in sorted(there.keys() | here.keys())
        )
        return next(filter(None, inner), "")
    return "" if there == here else f"{name} is {there!r} there, {here!r} here"


def made_with() -> dict[str, str]:
    """The device, Python, and the libraries that numbers depend on."""
    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "python": sys.version.split()[0],
        **versions.of(LIBRARIES),
    }
