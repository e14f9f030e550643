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


def test_the_commit_is_that_of_the_clone_and_tells_of_changes(tmp_path, monkeypatch):
    package = tmp_path / "ma2mi_jax"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(versions.ma2mi_jax, "__file__", str(package / "__init__.py"))
    assert versions.commit() == versions.ma2mi_jax.__version__  # no clone

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    assert versions.commit() == versions.ma2mi_jax.__version__  # without any commit
    git("add", ".")
    git("commit", "-qm", "begin")
    assert versions.commit() == git("rev-parse", "HEAD")[:7]
    (package / "__init__.py").write_text("changed = True")
    assert versions.commit() == git("rev-parse", "HEAD")[:7] + "-dirty"


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
