"""Where the frames are that a sheet names: from its numbers to positions among the files, and what had to be mended on the way."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

CLOSE = 5  # frames by which a sheet may overshoot the files before another origin is thought of: a few frames are missing now and then

REBASED = "frame numbers of the sheet rebased to the files'"
BOUNDS = "onset or offset missing or impossible, the clip's first or last frame taken"
ABSENT = "frames of the sheet absent on disk, the nearest taken"
APEX = "apex missing or impossible, the frame that differs most from the onset taken"


class Place(NamedTuple):
    """Positions of the three frames among the files, the apex's -1 where it must be estimated; and (kind, what) of the faults met."""

    onset: int
    apex: int
    offset: int
    faults: tuple[tuple[str, str], ...]


def locate(numbers: Sequence[int], onset: int | None, apex: int | None, offset: int | None, *, rebases: bool = False) -> Place:
    """Where the frames are that a sheet names.

    Args:
      numbers: of the files, ascending, at least one.
      onset, apex, offset: as the sheet has them, None where it has no number.
      rebases: whether the two may count from different frames.
    """
    faults = []
    if offset is not None and onset is not None and offset <= onset:
        faults.append((BOUNDS, f"offset {offset} is not after onset {onset}"))
        offset = None
    elif onset is None or offset is None:
        faults.append((BOUNDS, f"no {' and no '.join(name for name, n in (('onset', onset), ('offset', offset)) if n is None)}"))
    if rebases and onset is not None and (shift := origin(numbers, onset, offset)):
        faults.append((REBASED, f"by {shift:+d}"))
        onset, apex, offset = (None if n is None else n + shift for n in (onset, apex, offset))
    onset, offset = numbers[0] if onset is None else onset, numbers[-1] if offset is None else offset

    at = {name: nearest(numbers, n) for name, n in (("onset", onset), ("apex", apex), ("offset", offset)) if n is not None}
    if apex is None:
        problem = "no apex"
    elif not onset < apex <= offset:
        problem = f"apex {apex} is not after onset {onset} and up to offset {offset}"
    elif not at["onset"] < at["apex"] <= at["offset"]:
        problem = f"apex {apex} is nearest to the frame taken for the onset"
    else:
        problem = ""
    if problem:
        faults.append((APEX, problem))
        at["apex"] = -1
    wanted = {"onset": onset, "apex": apex, "offset": offset}
    lost = [f"{name} {wanted[name]} → {numbers[i]}" for name, i in at.items() if i >= 0 and numbers[i] != wanted[name]]
    if lost:
        faults.append((ABSENT, ", ".join(lost)))
    return Place(at["onset"], at["apex"], at["offset"], tuple(faults))


def nearest(numbers: Sequence[int], wanted: int) -> int:
    """Position of the number nearest to `wanted` in ascending `numbers`, of two the lower."""
    i = bisect.bisect_left(numbers, wanted)
    return min((j for j in (i - 1, i) if 0 <= j < len(numbers)), key=lambda j: abs(numbers[j] - wanted))


def origin(numbers: Sequence[int], onset: int, offset: int | None) -> int:
    """What to add to a sheet's frame numbers to have the files'.

    0 if onset and offset then lie among the files, but for CLOSE. Else it is tried whether the sheet counts from 1 in files that
    count on from elsewhere, and whether it counts from elsewhere in files that begin with the onset. The last always finds the onset.
    """
    first, last = numbers[0], numbers[-1]
    ends = [onset] if offset is None else [onset, offset]

    def outside(shift: int, frames: Sequence[int]) -> int:
        return max(max(first - n - shift, n + shift - last, 0) for n in frames)

    shifts = (0, first - 1, first - onset)
    if fitting := [shift for shift in shifts if outside(shift, ends) <= (CLOSE if shift == 0 else 0)]:
        return fitting[0]
    return next(shift for shift in shifts if outside(shift, [onset]) == 0)
