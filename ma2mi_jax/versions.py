"""Versions of the libraries that numbers depend on."""

import importlib.metadata
from collections.abc import Iterable

import cv2

OPENCV = "opencv"


def of(libraries: Iterable[str]) -> dict[str, str]:
    """The version of each library, "absent" if it is not installed.

    Args:
      libraries: as they are installed. Of OpenCV there are several distributions with one module
        (`opencv-python`, `opencv-contrib-python`, ...), so it is asked for as `OPENCV`.
    """
    return {name: cv2.__version__ if name == OPENCV else _installed(name) for name in libraries}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
