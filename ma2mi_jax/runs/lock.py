"""One process at a time in a folder: of two that write into the same run or the same prepared data, the second says so and ends."""

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator

from ma2mi_jax.errors import UserError

# What network disks answer that cannot lock a folder: then there is no lock.
UNABLE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


@contextlib.contextmanager
def alone(folder: str | os.PathLike, flag: str) -> Iterator[None]:
    """Keeps other processes that ask for the same out of `folder` meanwhile; makes it, and takes it away if nothing was put into it.

    The lock is on the folder itself, leaves no file, and goes with the process, killed or not.

    Args:
      flag: by which a person named the folder, for errors.

    Raises:
      UserError: another process has the lock, or the folder cannot be made.
    """
    folder = pathlib.Path(folder)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{flag}={folder}: another process is at work there; wait until it ends, or give another folder"
            ) from None
        except OSError as error:
            if error.errno not in UNABLE:
                raise UserError(
                    f"{flag}={folder}: cannot be written ({error.strerror}); give another folder"
                ) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def wait(folder: str | os.PathLike, note: Callable[[], None]) -> None:
    """Returns when no other process has the lock of `folder`; calls `note` once if one has it."""
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        contextlib.ExitStack() as stack,
    ):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            note()
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in UNABLE:
                raise
