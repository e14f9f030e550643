"""A checkpoint that is not what was saved is never restored."""

import shutil
import time

import jax
import numpy as np
import pytest

from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint

SHAPE = {"w": jax.ShapeDtypeStruct((5000,), np.float32)}


def state(step):
    return {"w": step + np.arange(5000, dtype=np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("made")
    with checkpoint.manager(folder) as checkpoints:
        for step in (1, 2):
            checkpoint.save(checkpoints, step, state(step))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "checkpoints")


def files_of(step):
    """With content, in a checkpoint."""
    files = (path for path in step.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(str(path.relative_to(step)) for path in files if path.name not in checkpoint.LATE)


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


def resumed(folder):
    """Step, first weight, and what was told."""
    told = []
    with checkpoint.manager(folder) as checkpoints:
        step, found = checkpoint.resume(checkpoints, state(-1), told.append)
    return step, float(found["w"][0]), told


def test_every_file_of_a_checkpoint_is_guarded(made, tmp_path):
    names = files_of(made / "2")
    assert len(names) > 5
    for number, name in enumerate(names):
        copy = shutil.copytree(made / "2", tmp_path / str(number))
        assert not checkpoint.damage(copy)
        flip(copy / name)
        assert checkpoint.damage(copy), name
        (copy / name).write_bytes(b"")
        assert checkpoint.damage(copy), name
        if name != checkpoint.CHECKSUMS:
            (copy / name).unlink()
            assert checkpoint.damage(copy) == f"{name} is missing"


def test_a_damaged_one_gives_way_to_the_one_before_and_is_kept(folder):
    flip(max((folder / "2").rglob("d/*"), key=lambda path: path.stat().st_size))
    step, weight, told = resumed(folder)
    assert (step, weight) == (1, 1)
    assert len(told) == 1
    assert told[0].startswith(f"{folder / '2'}: damaged")
    assert (folder / "2.damaged").is_dir()

    with checkpoint.manager(folder) as checkpoints:  # and its step can be saved again
        checkpoint.save(checkpoints, 2, state(2))
    assert resumed(folder) == (2, 2, [])


def test_without_a_whole_one_it_begins_anew(folder):
    for step in ("1", "2"):
        (folder / step / "state" / "_METADATA").unlink()
    step, weight, told = resumed(folder)
    assert (step, weight, len(told)) == (0, -1, 2)


def test_what_is_asked_for_by_its_step_is_never_another_one(folder):
    flip(folder / "2" / "state" / "manifest.ocdbt")
    for step, expected in ((2, "damaged"), (3, "found none")):
        with pytest.raises(UserError, match=expected):
            checkpoint.restore(folder, step, SHAPE)
    assert (folder / "2").is_dir()


@pytest.mark.parametrize("content", [None, b"", b'{"item_hand'])
def test_when_a_checkpoint_was_made_does_not_matter(folder, content):
    times = [path for path in folder.glob("2/**/*") if path.name in checkpoint.LATE]
    assert len(times) == 3
    for file in times:
        file.unlink() if content is None else file.write_bytes(content)
    assert resumed(folder) == (2, 2, [])


def test_times_that_orbax_cannot_take_are_told_with_a_remedy(folder):
    (folder / "2" / checkpoint.LATE[0]).write_text('{"item_handlers": 3}')
    with pytest.raises(UserError, match=f"{checkpoint.LATE[0]} in there is damaged.*delete it"):
        resumed(folder)


def test_checkpoints_of_earlier_versions_are_read_unchecked(folder):
    (folder / "2" / checkpoint.CHECKSUMS).unlink()
    assert resumed(folder) == (2, 2, [])


def test_another_network_is_told_in_one_line(tmp_path, capfd):
    """And not by each read that orbax had begun, from a thread of its own."""
    names = [f"w{number}" for number in range(60)]
    checkpoint.write(tmp_path, 0, {"a": {name: np.ones((5, 3), np.float32) for name in names}})
    other = {"a": {name: jax.ShapeDtypeStruct((5, 2), np.float32) for name in names}}
    with pytest.raises(UserError, match="belongs to another network") as refused:
        checkpoint.restore(tmp_path, 0, other)
    time.sleep(0.5)
    assert capfd.readouterr().err == ""
    assert "a.w0 has shape (5, 3), expected (5, 2)" in str(refused.value)
