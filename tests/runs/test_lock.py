"""Two processes never write into one folder."""

import pathlib
import subprocess
import sys

import commands
import pytest

from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOLD = """
import sys
from ma2mi_jax.runs import lock

with lock.alone(sys.argv[1], "out"):
    print("held", flush=True)
    sys.stdin.read()
"""
TINY = "--preset=smoke --space=pixel --batch-size=16 --steps=1"
SCRIPTS = {
    "prepare": "--source=synthetic --clips=2 --size=64 --out",
    "pretrain": f"--source=synthetic --clips=2 {TINY} --run",
    "finetune": "--target=synthetic --preset=smoke --run",
}


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    folder = tmp_path / "deep" / "folder"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        yield folder, holder
        holder.kill()


def test_the_second_script_says_so_and_ends(held, tmp_path):
    folder, _ = held
    environment = commands.one_device()
    for script, text in SCRIPTS.items():
        *flags, last = text.split()
        done = commands.run(script, *flags, f"{last}={folder}", environment=environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: {last}={folder}: another process is at work there; wait until it ends, or "
            "give another folder\n"
        )


def test_a_killed_process_leaves_no_lock(held):
    folder, holder = held
    with pytest.raises(UserError) as error, lock.alone(folder, "out"):
        pass
    assert str(error.value).startswith(f"out={folder}: another process is at work there")

    holder.kill()
    holder.wait()
    for _ in range(2):  # and neither does one that ends as it should
        with lock.alone(folder, "out"):
            (folder / "data").touch()
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_an_error_inside_keeps_its_own_parameters(tmp_path):
    def fails():
        with lock.alone(tmp_path / "out", "out"):
            raise UserError("[folder=x]: no such folder")

    with pytest.raises(UserError, match=r"^folder=x: no such folder"):
        fails()


def test_turns_are_taken_by_file(tmp_path):
    file, other = tmp_path / "deep" / "run.lock", tmp_path / "other.lock"
    with lock.turn(file) as first, lock.turn(file) as second, lock.turn(other) as apart:
        assert (first, second, apart) == (True, False, True)
    with pytest.raises(RuntimeError), lock.turn(file) as first:
        raise RuntimeError(first)
    with lock.turn(file, wait=True) as first:
        assert first


def test_an_empty_folder_is_taken_away_again(tmp_path):
    with lock.alone(tmp_path / "empty", "out"):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), lock.alone(tmp_path / "file", "out"):
        pass


def test_a_disk_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuses)
    with lock.alone(tmp_path / "out", "out"):
        assert (tmp_path / "out").is_dir()
