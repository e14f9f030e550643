"""From the frame numbers of a sheet to positions among the files, and what had to be mended.

A sheet and the files may count frames from different origins, in one of three ways (`COUNTINGS`). A
single row cannot tell a wrong offset from another way of counting. So the sheet as a whole decides
(`counting`), and a row goes its own way only for a reason (`_counting_of_row`).
"""

import bisect
import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CLOSE = 5
"""A sheet may name numbers this far outside the files: a few frames are missing now and then. What
lies farther out counts from another origin, or is impossible."""

COUNTINGS = {
    "as the files do": lambda first, onset: 0,
    "from 1 in each clip, where the files count on from elsewhere": lambda first, onset: first - 1,
    "from elsewhere, where the files begin with the onset": lambda first, onset: first - onset,
}
"""The ways in which a sheet may count. Each is a function of the first file's number and the row's
onset. It gives what to add to the sheet's numbers to get the files' numbers.

The most particular claim comes first. The last one says least: it always finds the onset, so nearly
every row agrees with it.
"""
*PARTICULAR, ANYWHERE = COUNTINGS

REBASED = "frame numbers of the sheet rebased to the files'"
STRAYS = (
    "frame numbers that do not count as those of the sheet's other rows, rebased in another way"
)
BOUNDS = "onset or offset missing or impossible, the clip's first or last frame taken"
ABSENT = "frames of the sheet absent on disk, the nearest taken"
APEX = "apex missing or impossible, the frame that differs most from the onset taken"


class Place(NamedTuple):
    """Where the three frames of a row are.

    Attributes:
      onset, apex, offset: positions among the files; the apex's is -1 where it must be estimated.
      faults: (kind, what) of each fault that was met.
    """

    onset: int
    apex: int
    offset: int
    faults: tuple[tuple[str, str], ...]


def locate(
    numbers: Sequence[int],
    onset: int | None,
    apex: int | None,
    offset: int | None,
    *,
    counts: str | None = None,
    ends: bool = True,
) -> Place:
    """Where the frames are that a row of a sheet names.

    Args:
      numbers: of the files, ascending, at least one.
      onset, apex, offset: as the sheet has them; None where it has no number.
      counts: how the sheet counts, one of COUNTINGS. None means that this dataset always counts as
        its files do.
      ends: whether a row is to name its offset. If not, one without means the last file.
    """
    faults, bounds = [], []

    # ----- onset and offset that cannot be -----
    if offset is not None and onset is not None and offset <= onset:
        bounds.append(f"offset {offset} is not after onset {onset}")
        offset = None
    else:
        asked = (("onset", onset), ("offset", offset if ends else numbers[-1]))
        if lacking := [name for name, n in asked if n is None]:
            bounds.append(f"no {' and no '.join(lacking)}")

    # ----- from the sheet's numbers to the files' -----
    if counts is not None and (onset is not None or counts != ANYWHERE):
        own = counts if onset is None else _counting_of_row(numbers, onset, offset, counts)
        shift = COUNTINGS[own](numbers[0], onset)
        if own != counts:
            faults.append((STRAYS, f"by {shift:+d}: {own}"))
        elif shift:
            faults.append((REBASED, f"by {shift:+d}"))
        onset, apex, offset = (None if n is None else n + shift for n in (onset, apex, offset))

    # ----- numbers that no file is near -----
    files = f"the files, {numbers[0]} to {numbers[-1]}"
    if onset is not None and nearest(numbers, onset) < 0:
        bounds.append(f"onset {onset} lies outside {files}")
        onset = None
    if offset is not None and nearest(numbers, offset) < 0:
        bounds.append(f"offset {offset} lies outside {files}")
        offset = None
    if bounds:
        faults.append((BOUNDS, "; ".join(bounds)))
    onset = numbers[0] if onset is None else onset
    offset = numbers[-1] if offset is None else offset

    # ----- from numbers to positions -----
    wanted = {"onset": onset, "apex": apex, "offset": offset}
    at = {name: nearest(numbers, n) for name, n in wanted.items() if n is not None}
    if apex is None:
        problem = "no apex"
    elif at["apex"] < 0:
        problem = f"apex {apex} lies outside {files}"
    elif not onset < apex <= offset:
        problem = f"apex {apex} is not after onset {onset} and up to offset {offset}"
    elif not at["onset"] < at["apex"] <= at["offset"]:
        problem = f"apex {apex} is nearest to the frame taken for the onset"
    else:
        problem = ""
    if problem:
        faults.append((APEX, problem))
        at["apex"] = -1

    absent = [
        f"{name} {wanted[name]} → {numbers[i]}"
        for name, i in at.items()
        if i >= 0 and numbers[i] != wanted[name]
    ]
    if absent:
        faults.append((ABSENT, ", ".join(absent)))
    return Place(at["onset"], at["apex"], at["offset"], tuple(faults))


def nearest(numbers: Sequence[int], wanted: int) -> int:
    """Position of the number nearest to `wanted` in ascending `numbers`; ties go to the lower.

    It is -1 if `wanted` lies more than CLOSE outside them: the first or the last of them would then
    stand for something else.
    """
    if not numbers[0] - CLOSE <= wanted <= numbers[-1] + CLOSE:
        return -1
    i = bisect.bisect_left(numbers, wanted)
    beside = [j for j in (i - 1, i) if 0 <= j < len(numbers)]
    return min(beside, key=lambda j: abs(numbers[j] - wanted))


def counting(rows: Iterable[tuple[Sequence[int], int | None, int | None]]) -> Mapping[str, int]:
    """How many rows of a sheet speak for each of COUNTINGS.

    The one with most votes comes first; ties go to the more particular claim. A row votes for the
    first counting by which its onset and its offset both lie among its files. A row does not vote
    if onset or offset is missing, if the offset is not after the onset, or if no counting fits.

    Args:
      rows: the numbers of a clip's files, ascending, then the onset and the offset of its row.
    """
    votes = dict.fromkeys(COUNTINGS, 0)
    for numbers, onset, offset in rows:
        if onset is None or offset is None or offset <= onset:
            continue
        for name, shift in COUNTINGS.items():
            # a sheet that counts as the files do may miss them by a few frames
            tolerated = 0 if shift(numbers[0], onset) else CLOSE
            if _beyond(numbers, onset, [onset, offset], name) <= tolerated:
                votes[name] += 1
                break
    return dict(collections.Counter(votes).most_common())


def _counting_of_row(numbers: Sequence[int], onset: int, offset: int | None, counts: str) -> str:
    """How one row counts in a sheet that counts as `counts` says.

    A row counts as the sheet does, unless its onset is then not among the files.

    In a sheet that counts from elsewhere every row's onset is among the files. There a row goes its
    own way if its onset and offset are among the files by a more particular counting: numbers that
    count from elsewhere hardly ever are by chance.
    """
    ends = [onset] if offset is None else [onset, offset]
    if counts == ANYWHERE:
        fitting = [name for name in PARTICULAR if not _beyond(numbers, onset, ends, name)]
        if not fitting:
            return ANYWHERE
        own = fitting[0]
        same_shift = COUNTINGS[own](numbers[0], onset) == COUNTINGS[ANYWHERE](numbers[0], onset)
        return ANYWHERE if same_shift else own

    if _beyond(numbers, onset, [onset], counts) <= CLOSE:
        return counts
    for frames in (ends, [onset]):
        for name in COUNTINGS:
            if not _beyond(numbers, onset, frames, name):
                return name
    raise AssertionError("the last counting always puts the onset among the files")


def _beyond(numbers: Sequence[int], onset: int, frames: Sequence[int], counts: str) -> int:
    """How far `frames` of a row lie outside the files, at most; 0 if they lie among them."""
    shift = COUNTINGS[counts](numbers[0], onset)
    before = max(numbers[0] - (n + shift) for n in frames)
    after = max((n + shift) - numbers[-1] for n in frames)
    return max(0, before, after)
