"""Files are whole or not there, JSON comes back as it was, and hashes are those of sha256."""

import hashlib
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax import files
from ma2mi_jax.errors import UserError


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


def test_what_a_killed_process_left_of_a_folder_is_removed_later(tmp_path):
    dead, alive = tmp_path / "entry.1", tmp_path / "entry.2"
    dead.mkdir()
    alive.mkdir()
    os.utime(dead, (0, 0))
    with files.whole_folder(tmp_path / "entry"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["entry", "entry.2"]


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
