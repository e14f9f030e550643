"""A run's folder: what was asked (`config.json`), how it goes (`metrics.jsonl`, TensorBoard), what came out (`summary.json`).

A folder is *unfinished* until its result file is written, and only an unfinished run of the same configuration is resumed.
"""

import importlib.metadata
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax
import tensorboardX

from ma2mi_jax import files
from ma2mi_jax.errors import UserError


def check_run(path: pathlib.Path, result: str, overwrite: bool = False) -> bool:
    """Whether an unfinished run lies in the folder. Changes nothing: call it before any long work.

    Args:
      result: the file whose presence says that the run is finished.
      overwrite: an earlier run, finished or not, may be deleted.

    Raises:
      UserError: the folder holds a finished run, or something that is no run.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"--run={path}: a file of that name is in the way; choose another folder")
    if not path.is_dir() or not any(path.iterdir()):
        return False
    if not (path / "config.json").exists():
        raise UserError(
            f"--run={path}: the folder is not empty and no config.json says it is a run; choose another folder"
        )
    if (path / result).exists() and not overwrite:
        raise UserError(
            f"--run={path}: a finished run is there ({result}); choose another folder or give --overwrite"
        )
    return not overwrite


def open_run(
    path: pathlib.Path, config: Mapping[str, Any], result: str, overwrite: bool = False
) -> bool:
    """Makes the run's folder and writes `config.json`; returns whether an unfinished run of the same `config` is there to be resumed.

    Args:
      config: what decides the numbers; JSON-like.
      result, overwrite: as for `check_run`; with `overwrite` an earlier run is deleted.

    Raises:
      UserError: as `check_run`; or the unfinished run there is of another configuration.
    """
    config = json.loads(json.dumps(config))  # tuples become lists, as they will be when read back
    if check_run(path, result, overwrite):
        different = _first_difference(files.read_json(path / "config.json")["config"], config)
        if different:
            raise UserError(
                f"--run={path}: an unfinished run of another configuration is there ({different}); "
                "give the same flags to resume it, another folder, or --overwrite"
            )
        return True
    path.mkdir(parents=True, exist_ok=True)
    for there in path.iterdir():  # and not the folder itself, which may be locked
        shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
    files.write_json(
        path / "config.json",
        {"config": config, "command": shlex.join(sys.argv), "versions": versions()},
    )
    return False


def _first_difference(there: Any, here: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        inner = (
            _first_difference(there.get(k), here.get(k), f"{name}.{k}".lstrip("."))
            for k in sorted(there.keys() | here.keys())
        )
        return next(filter(None, inner), "")
    return "" if there == here else f"{name} is {there!r} there, {here!r} here"


def versions() -> dict[str, str]:
    """Device, Python and the libraries that numbers depend on."""
    names = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "numpy",
        "opencv-python-headless",
    )
    device = jax.devices()[0]
    found = {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "python": sys.version.split()[0],
    }
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


class MetricsLog:
    """`metrics.jsonl` (an object a line) and TensorBoard events in `path`; use as a context manager.

    Lines of steps >= `start` are dropped first: a resumed run goes on from its checkpoint and writes them again.
    """

    def __init__(self, path: pathlib.Path, start: int = 0):
        file = path / "metrics.jsonl"
        self.lines = [line for line in read_metrics(path) if line["step"] < start]
        file.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        self._file = file.open("a")
        self._events = tensorboardX.SummaryWriter(str(path), purge_step=start if start else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; `step` is 0-based and counts updates already made."""
        line = {"step": step} | {k: float(v) for k, v in values.items()}
        self.lines.append(line)
        self._file.write(json.dumps(files.plain(line)) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, float(value), step)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._events.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, `[]` where there is none; a last line cut short by a kill is left out."""
    file = path / "metrics.jsonl"
    lines = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
