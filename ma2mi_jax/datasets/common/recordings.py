"""Clips that are parts of a longer recording: which of its frames belong to a row of the sheet."""

from collections.abc import Mapping

from ma2mi_jax.clips.frames import ImageFolder, frame_numbers
from ma2mi_jax.datasets.common import micro, sheets
from ma2mi_jax.datasets.common.frame_numbers import CLOSE

LONGEST = 0.5
"""Seconds that a micro-expression lasts at most, as the field defines it."""


def cut(recording: ImageFolder, row: Mapping[str, str], fps: float) -> ImageFolder:
    """The frames of a recording from the first to the last that a row of the sheet names.

    A number that lies outside the recording is passed over: `micro.read` repairs it and tells it.
    If only one number is left, half a second from there on is taken; if there is none, no frame.

    Args:
      recording: its images; those without a number are no frames.
      row: of the sheet, as from `sheets.read`.
      fps: frames per second.
    """
    recording = micro.numbered(recording)
    numbers = frame_numbers(recording.names)
    if not numbers:
        return recording
    columns = ("onsetframe", "apexframe", "offsetframe")
    named = [n for column in columns if (n := sheets.whole(row[column])) is not None]
    inside = [n for n in named if numbers[0] - CLOSE <= n <= numbers[-1] + CLOSE]
    if not inside:
        return ImageFolder(recording.folder, ())
    first, last = min(inside), max(inside)
    if first == last:
        last = first + round(LONGEST * fps)
    names = zip(numbers, recording.names, strict=True)
    return ImageFolder(recording.folder, tuple(name for n, name in names if first <= n <= last))
