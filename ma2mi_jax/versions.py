"""Versions of the libraries that numbers depend on, and of this code."""

import importlib.metadata
import pathlib
import subprocess
from collections.abc import Iterable

import cv2

import ma2mi_jax

OPENCV = "opencv"


def of(libraries: Iterable[str]) -> dict[str, str]:
    """The version of each library, "absent" if it is not installed.

    Args:
      libraries: as they are installed. Of OpenCV there are several distributions with one module
        (`opencv-python`, `opencv-contrib-python`, ...), so it is asked for as `OPENCV`.
    """
    return {name: cv2.__version__ if name == OPENCV else _installed(name) for name in libraries}


def commit() -> str:
    """The commit of this code, such as `ec77d1c`; `ec77d1c-dirty` if files were changed since.

    Where it runs from no clone, or git cannot say, it is the version of the package.
    """
    root = pathlib.Path(ma2mi_jax.__file__).resolve().parents[1]
    if (root / ".git").exists():  # and no clone around it, of something else
        head, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "-s", "-uno")
        if head and changes is not None:
            return head[:7] + ("-dirty" if changes else "")
    return ma2mi_jax.__version__


def _git(root: pathlib.Path, *words: str) -> str | None:
    """What git says about a clone; None if it cannot."""
    try:
        said = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
