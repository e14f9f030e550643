"""Files: they are written whole or not at all, JSON is read and written in one way, and content has
a hash.

A process can be killed at any moment, and a disk can be full. So a file is written under another
name first and renamed when it is complete. Whoever finds a file under its own name can rely on it.
"""

import collections
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from ma2mi_jax import schema
from ma2mi_jax.errors import UserError

LONGEST = 120  # bytes of a name; systems allow 255 with all suffixes, encrypted disks 143
UNZIPPING = (zipfile.BadZipFile, zlib.error, NotImplementedError)  # what damaged zip files raise
ABANDONED = 600  # seconds without a write: the process that filled this folder has died

# ----- what others wrote --------------------------------------------------------------------------


def opened(path: str | os.PathLike) -> BinaryIO:
    """A regular file, open for reading.

    A pipe would be waited for, and a device may never end.

    Raises:
      OSError: it cannot be opened, or it is no regular file.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)  # or it would wait for the pipe here
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def newer(path: str | os.PathLike, found: Any, known: int) -> UserError:
    """The error for a file of a format that a later version wrote."""
    return UserError(
        "{path}: written by a newer version (format {found}, this one knows {known}); update "
        "ma2mi_jax",
        path=path,
        found=found,
        known=known,
    )


# ----- a full disk -------------------------------------------------------------------------------


def unwritable(path: str | os.PathLike, error: OSError) -> UserError:
    """The error for a file or folder that the system does not let us write."""
    return UserError(
        "{path}: cannot be written ({reason}); free the disk, or give another folder",
        path=path,
        reason=error.strerror,
    )


def not_ours(path: str | os.PathLike, error: PermissionError) -> UserError:
    """The error for a part of a cache that another account made and that this one may not read."""
    return UserError(
        "{path}: this part of the cache cannot be read ({reason}); have its owner make it readable "
        "(chmod -R a+rX), or give another cache folder",
        path=path,
        reason=error.strerror,
    )


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """An OSError of the block names `path` unless it names a file: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def array_to_fill(path: str | os.PathLike, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` file as a writable memory map, for which the disk has room.

    Without room for it, the first write into the map would end the process without a word.

    Raises:
      OSError: the file cannot be written, or the disk has no room.
    """
    with naming(path):
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
        return rows


# ----- whole or not at all -----------------------------------------------------------------------


@contextlib.contextmanager
def whole(path: str | os.PathLike, *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which becomes `path` at the end of the block, all at once.

    After an error in the block `path` is what it was before, and the temporary file is removed. A
    process that is killed leaves the temporary file, whose name ends in `.part`.

    Args:
      path: the file; its folder exists.
      shared: whether several processes may write this file at the same time, as those of a cache.
        Each then has a temporary file of its own, which is removed by the next process if this one
        is killed, and the last one to finish wins. Without it the temporary name is
        always the same, so that the next attempt writes over what a killed process left.

    Raises:
      OSError: the file cannot be written.
    """
    path = pathlib.Path(path)
    process = f".{os.getpid()}" if shared else ""
    temporary = path.with_name(f"{path.name}{process}.part")

    try:
        with naming(path), contextlib.ExitStack() as held:
            if shared:
                _clear(path.parent)
                descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
                held.callback(os.close, descriptor)
                _lock(descriptor)
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # after `replace` it is not there any more
            temporary.unlink()


def _lock(descriptor: int) -> bool:
    """Whether this process, and no other, holds the file from now on, until it ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the disk knows no locks
        return False
    return True


@functools.lru_cache(maxsize=64)  # once a process: a cache may hold very many files
def _clear(folder: pathlib.Path) -> None:
    """Removes the temporary files of `whole(shared=True)` that killed processes left."""
    for left in folder.iterdir():
        if not re.search(r"\.\d+\.part$", left.name):
            continue
        with contextlib.suppress(OSError), open(left, "rb") as file:
            if _lock(file.fileno()):
                left.unlink()


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a new folder to fill, which becomes `path` at the end of the block, all at once.

    Several processes may make the same folder at the same time. The first to finish wins; the work
    of the others is dropped, since theirs would be the same. What a killed process left is removed
    after ABANDONED seconds.

    Args:
      path: the folder; the folder around it exists.

    Raises:
      OSError: the folder cannot be written.
    """
    path = pathlib.Path(path)
    for left in _left_in(path.parent).get(path.name, ()):
        with contextlib.suppress(FileNotFoundError):  # its process finishes at this very moment
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)

    # not by tempfile, whose folders are closed to all other accounts, whatever the umask
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():  # if it is there, another process has been faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@functools.lru_cache(maxsize=64)  # once a process: a cache may hold very many folders
def _left_in(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """What there is of unfinished folders of `whole_folder`, by the name that each was to have."""
    left = collections.defaultdict(list)
    for path in folder.iterdir():
        name, _, process = path.name.rpartition(".")
        if name and process:
            left[name].append(path)
    return dict(left)


def discard(path: str | os.PathLike, why: str) -> None:
    """Removes what can be made again, a file or a folder of a cache, and warns of it."""
    logging.getLogger(__name__).warning("%s: thrown away and made again (%s)", path, why)
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # the disk will say so when it is made again
            os.unlink(path)


# ----- names -------------------------------------------------------------------------------------


def printable(name: str) -> str:
    """A file's name as it can be shown and stored: bytes that are no UTF-8 become `\\xd6`.

    The system allows any bytes, and Python keeps them as halves of characters, which no terminal,
    picture or JSON file takes.
    """
    return os.fsencode(name).decode(errors="backslashreplace")


def shortened(name: str) -> str:
    """A name of LONGEST bytes at most, so that a suffix and a number still fit behind it."""
    return name.encode()[:LONGEST].decode(errors="ignore").rstrip()


# ----- JSON --------------------------------------------------------------------------------------


def read_json(
    path: str | os.PathLike,
    mend: str = "give the folder of a run; if it is one, its writing was interrupted",
    shape: Any = Any,
) -> Any:
    """The content of a JSON file.

    Args:
      path: the file.
      mend: the end of the error: what a person can do about it. By default the file belongs to a
        run's folder.
      shape: what is expected, as `schema.mismatch` takes it.

    Raises:
      UserError: the file is missing, it is not JSON, or it has another shape.
    """
    try:
        with opened(path) as file:
            content = json.loads(file.read())
    except OSError as error:
        raise UserError(
            "{path}: cannot be read ({reason}); {mend}",
            path=path,
            reason=error.strerror,
            mend=mend,
        ) from None
    # not JSON, not even text, or nested without end
    except (ValueError, RecursionError) as error:
        raise UserError(
            "{path}: cannot be read as JSON ({reason}); {mend}",
            path=path,
            reason=error,
            mend=mend,
        ) from None
    if different := schema.mismatch(content, shape):
        raise UserError(
            "{path}: not what is expected there ({different}); {mend}",
            path=path,
            different=different,
            mend=mend,
        )
    return content


def write_json(path: str | os.PathLike, content: Any, *, indent: int | None = 2) -> None:
    """Writes a JSON file, whole or not at all.

    Args:
      path: the file; its folder exists.
      content: what JSON can hold; mappings, tuples and arrays too. A number that is not finite
        becomes null.
      indent: spaces for each level; None writes everything in one line.

    Raises:
      OSError: the file cannot be written.
    """
    text = json.dumps(plain(content), indent=indent, allow_nan=False)
    with whole(path) as temporary:
        temporary.write_text(text + "\n")


def plain(value: Any) -> Any:
    """`value` in the types of JSON.

    Mappings become dictionaries with text keys; sequences and arrays become lists; NaN and infinity
    become None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a number of numpy or jax
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ----- arrays ------------------------------------------------------------------------------------


def read_npz(path: str | os.PathLike, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names in an `.npz` file, whose own checksums are checked.

    Raises:
      UserError: the file is missing or damaged, or lacks one of them.
    """
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, *UNZIPPING) as error:
        raise UserError(
            "{path}: cannot be read as the arrays {names} ({reason}); copy it again, or make the "
            "run again",
            path=path,
            names=", ".join(names),
            reason=getattr(error, "strerror", None) or error,
        ) from None


# ----- hashes ------------------------------------------------------------------------------------


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
      OSError: the file cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Iterable[str | bytes], digits: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of all parts of `content`, in their order.

    Args:
      content: texts or bytes. Where one part ends and the next begins does not count.
      digits: how many digits, 64 at most.
    """
    digest = hashlib.sha256()
    for part in content:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:digits]
