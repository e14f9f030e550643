"""One process at a time in a folder. If two want to write the same run, or the same prepared data,
the second says so and ends. Of several processes that make one run, the first has the lock."""

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator

from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.runs import processes

# What a network disk answers if it cannot lock a folder. Then there is no lock.
UNABLE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


@contextlib.contextmanager
def alone(folder: str | os.PathLike, parameter: str) -> Iterator[None]:
    """Keeps other processes that call this out of `folder` until the block ends.

    The folder is made if necessary, and removed at the end if nothing was put into it. The folder
    itself is locked. So the lock leaves no file, and it ends with the process, killed or not.

    Args:
      folder: where this process will write.
      parameter: by which a person gave the folder, such as `run`; errors name it.

    Raises:
      UserError: another process has the lock, or the folder cannot be made.
    """
    if not processes.is_first():
        yield
        return
    folder = pathlib.Path(folder)
    with contextlib.ExitStack() as stack:
        with parameters_called(folder=parameter):
            _lock(folder, stack)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _lock(folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
    """Makes and locks `folder`; `stack` opens the lock again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            "[folder={folder}]: another process is at work there; wait until it ends, or give "
            "another folder",
            folder=folder,
        ) from None
    except OSError as error:
        if error.errno not in UNABLE:
            raise UserError(
                "[folder={folder}]: cannot be written ({reason}); give another folder",
                folder=folder,
                reason=error.strerror,
            ) from error


@contextlib.contextmanager
def turn(file: str | os.PathLike, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process has `file`, as no other one that asks so, until the block ends.

    Unlike a folder, a file can be locked on network disks too. It is made, and it stays.

    Args:
      wait: for the others, so that the answer is always yes.

    Raises:
      OSError: the file cannot be made.
    """
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            ours = True
        except OSError as error:
            if not (isinstance(error, BlockingIOError) or error.errno in UNABLE):
                raise
            ours = error.errno in UNABLE
        yield ours


def is_held(folder: str | os.PathLike) -> bool:
    """Whether another process has the lock of `folder` at this moment."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
