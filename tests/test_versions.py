"""Versions are asked of what runs; a machine that lacks something says so at the start."""

import importlib.metadata
import pathlib
import subprocess
import sys

import cv2
import numpy as np

from ma2mi_jax import versions

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_opencv_is_known_under_the_name_of_any_distribution(monkeypatch):
    """As where `opencv-contrib-python` is installed in place of `opencv-python-headless`."""
    installed = importlib.metadata.version

    def without_headless(name):
        if name.startswith("opencv"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", without_headless)
    found = versions.of(["numpy", versions.OPENCV, "opencv-python-headless"])
    assert found == {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "opencv-python-headless": "absent",
    }


def test_what_the_machine_lacks_is_one_line_before_anything_is_done(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open it')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "prepare.py"), "--help"],
        env={"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: libGL.so.1: cannot open it; install the packages of requirements.txt"
    ]
