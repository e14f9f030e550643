"""OpenCV's own threads and messages, set up for code that calls it from many threads at once.

Images are read and resized in parallel by us, one image for each thread. If OpenCV divided every
call among threads of its own as well, they would only get into each other's way. Its warnings are
switched off, because a frame that cannot be read is reported by us, once.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2


def set_up(*_) -> None:
    """For a process that reads frames until it ends: no threads of OpenCV's, no warnings.

    Any arguments are ignored, so that this can be the first call of a worker process.
    """
    _set(0, cv2.utils.logging.LOG_LEVEL_ERROR)


@contextlib.contextmanager
def threads(
    workers: int | None = None, stop: threading.Event | None = None
) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that may call OpenCV. At the end OpenCV is set up as it was before.

    Args:
      workers: the number of threads; None is one for each core.
      stop: is set when the block ends, also by an error. Calls that have not begun by then are
        dropped; long calls may look at `stop` and end early.
    """
    before = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
    _set(1, cv2.utils.logging.LOG_LEVEL_ERROR)
    pool = ThreadPoolExecutor(workers or os.cpu_count())

    try:
        yield pool
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(cancel_futures=True)
        _set(*before)


def _set(threads_of_a_call: int, log_level: int) -> None:
    cv2.setNumThreads(threads_of_a_call)
    cv2.utils.logging.setLogLevel(log_level)
