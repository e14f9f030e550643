"""Files are whole or not there, JSON comes back as it was, and hashes are those of sha256."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax import files
from ma2mi_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_when_it_is_whole(tmp_path, shared):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.whole(path, shared=shared) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.name.endswith(".part")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fails():
        with files.whole(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_only_shared_files_have_temporary_names_of_their_process(tmp_path):
    with files.whole(tmp_path / "a.txt") as alone, files.whole(tmp_path / "b", shared=True) as mine:
        assert alone.name == "a.txt.part"
        assert mine.name == f"b.{os.getpid()}.part"
        alone.touch()
        mine.touch()


def test_of_two_that_make_a_folder_the_first_wins(tmp_path):
    path = tmp_path / "entry"
    with files.whole_folder(path) as late:
        (late / "a").write_text("late")
        with files.whole_folder(path) as early:
            (early / "a").write_text("early")
    assert (path / "a").read_text() == "early"
    assert os.listdir(tmp_path) == ["entry"]


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next(tmp_path):
    """But not what a living one writes."""
    leave = f"""
import os, sys
from ma2mi_jax import files
with files.whole({str(tmp_path / "film.npy")!r}, shared=True) as part:
    part.write_text("half of a film")
    print(part, flush=True)
    sys.stdin.read()
    os._exit(1)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", leave], cwd=ROOT, **pipes) as process:
        left = pathlib.Path(process.stdout.readline().rstrip())
        with files.whole(tmp_path / "other", shared=True) as other:
            other.write_text("whole")
        assert left.exists()
    files._clear.cache_clear()  # as in another process
    with files.whole(tmp_path / "other", shared=True):
        pass
    assert os.listdir(tmp_path) == ["other"]


def test_an_array_takes_its_room_at_once(tmp_path):
    array = files.array_to_fill(tmp_path / "a.npy", np.uint8, (1 << 20,))
    assert os.stat(tmp_path / "a.npy").st_blocks * 512 >= array.size
    assert not array.any()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95, 1])
def test_arrays_that_are_damaged_are_one_line(tmp_path, part):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(500), b=np.ones(2))
    assert files.read_npz(path, ["a"])["a"][3] == 3
    content = bytearray(path.read_bytes())
    for damaged in (content[: int(part * len(content)) - 1], b"", b"no zip", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read as the arrays a, b") as error:
            files.read_npz(path, ["a", "b"])
        assert "\n" not in str(error.value)


def test_what_a_killed_process_left_of_a_folder_is_removed_later(tmp_path):
    dead, alive = tmp_path / "entry.1", tmp_path / "entry.2"
    dead.mkdir()
    alive.mkdir()
    os.utime(dead, (0, 0))
    with files.whole_folder(tmp_path / "entry"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["entry", "entry.2"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_a_folder_and_a_file_are_as_open_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with files.whole_folder(tmp_path / "entry"):
            pass
        with files.whole(tmp_path / "file", shared=True) as part:
            part.write_text("")
    finally:
        os.umask(before)
    assert oct(os.stat(tmp_path / "entry").st_mode & 0o777) == oct(mode)
    assert oct(os.stat(tmp_path / "file").st_mode & 0o777) == oct(mode & 0o666)


def test_the_folder_around_new_folders_is_listed_once(tmp_path, monkeypatch):
    listed = []
    for name in ("scandir", "listdir"):
        own = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path=".", own=own: listed.append(path) or own(path))
    for entry in "abc":
        with files.whole_folder(tmp_path / entry):
            pass
    assert list(map(str, listed)) == [str(tmp_path)]


def test_json_comes_back_in_its_own_types(tmp_path):
    content = {
        3: (1, 2),
        "array": np.arange(3, dtype=np.int32),
        "jax": jnp.float32(0.5),
        "not finite": [float("nan"), np.inf],
    }
    files.write_json(tmp_path / "a.json", content)
    expected = {"3": [1, 2], "array": [0, 1, 2], "jax": 0.5, "not finite": [None, None]}
    assert files.read_json(tmp_path / "a.json") == expected
    assert (tmp_path / "a.json").read_text() == json.dumps(expected, indent=2) + "\n"

    files.write_json(tmp_path / "a.json", expected, indent=None)
    assert (tmp_path / "a.json").read_text() == json.dumps(expected) + "\n"


def test_json_that_cannot_be_read_is_one_line_with_a_remedy(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1')
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json", "absent.json"):
        with pytest.raises(UserError) as error:
            files.read_json(tmp_path / name, "write it again")
        assert str(error.value).startswith(f"{tmp_path / name}: cannot be read")
        assert str(error.value).endswith("; write it again")
        assert "\n" not in str(error.value)


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert files.sha256(tmp_path / "a") == digest
    assert files.fingerprint(["con", b"tent"], digits=64) == digest
    assert files.fingerprint(["content"]) == digest[:16]
