"""The benchmark of the pipeline measures every form of the same frames."""

import re

import numpy as np
import pytest

from benchmarks import pipeline
from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.datasets import prepared
from ma2mi_jax.errors import UserError


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The main of the script."""
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "cache"))
    return pipeline.main


def test_every_form_is_measured(bench, tmp_path, capsys, monkeypatch):
    film = np.kron(
        np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3)), np.ones((1, 8, 8, 1))
    ).astype(np.uint8)
    np.save(tmp_path / "film.npy", film)
    clips = tuple(
        Clip(f"{i}", ArrayFrames(str(tmp_path / "film.npy"), 10 * i, 10)) for i in range(2)
    )
    prepared.write(Dataset("folder", clips), "source", tmp_path / "data", size=64)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    bench(
        [
            "--source=folder",
            f"--data-root={tmp_path / 'data'}",
            "--size=64",
            "--batch-size=4",
            "--seconds=1",
            "--repeats=1",
        ]
    )
    printed = capsys.readouterr().out
    assert "folder: 2 clips, 20 frames of 64 x 64" in printed
    for form in (
        "prepared",
        "folders of JPEG files",
        "as they lie",
        "video files",
        "JPEG decoding alone",
    ):
        by_clock, by_core = map(
            int, re.search(rf"^ *{form}.*?(\d+) +(\d+) *$", printed, re.MULTILINE).groups()
        )
        assert by_clock > 0
        assert by_core > 0
    assert "this process" in printed
    assert not list((tmp_path / "scratch").iterdir()), "nothing is left behind"


def test_a_target_is_not_streamed(bench):
    with pytest.raises(UserError, match=r"target=samm.*: .*give a source"):
        bench(["--target=samm"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--size=100", "multiple of 8"),
        ("--batch-size=3", "multiple of 2"),
        ("--seconds=0", "integer >= 1"),
    ],
)
def test_a_wrong_flag_ends_early(bench, flag, message):
    with pytest.raises(UserError, match=message):
        bench(["--source=synthetic", flag])
