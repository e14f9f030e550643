"""Where the frames are that a sheet names: from its numbers to positions among the files, and what had to be mended on the way.

A sheet and the files may count frames from different ones, in one of three ways (`COUNTINGS`). A row alone cannot tell a wrong offset
from another way of counting. So the sheet as a whole decides (`counting`), and a row goes its own way only for a reason (`_origin`).
"""

import bisect
import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CLOSE = 5  # frames by which a sheet may overshoot the files before another origin is thought of: a few frames are missing now and then

COUNTINGS = {
    "as the files do": lambda first, onset: 0,
    "from 1 in each clip, where the files count on from elsewhere": lambda first, onset: first - 1,
    "from elsewhere, where the files begin with the onset": lambda first, onset: first - onset,
}
"""The ways a sheet may count: by the first file's number and the onset, what to add to the sheet's numbers to have the files'.

The most particular claim comes first: nearly every row agrees with the last one, which always finds the onset.
"""

REBASED = "frame numbers of the sheet rebased to the files'"
STRAYS = (
    "frame numbers that do not count as those of the sheet's other rows, rebased in another way"
)
BOUNDS = "onset or offset missing or impossible, the clip's first or last frame taken"
ABSENT = "frames of the sheet absent on disk, the nearest taken"
APEX = "apex missing or impossible, the frame that differs most from the onset taken"


class Place(NamedTuple):
    """Positions of the three frames among the files, the apex's -1 where it must be estimated; and (kind, what) of the faults met."""

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
) -> Place:
    """Where the frames are that a sheet names.

    Args:
      numbers: of the files, ascending, at least one.
      onset, apex, offset: as the sheet has them, None where it has no number.
      counts: how the sheet counts, one of COUNTINGS; None if the dataset leaves no doubt that it does as the files do.
    """
    faults = []
    if offset is not None and onset is not None and offset <= onset:
        faults.append((BOUNDS, f"offset {offset} is not after onset {onset}"))
        offset = None
    elif onset is None or offset is None:
        faults.append(
            (
                BOUNDS,
                f"no {' and no '.join(name for name, n in (('onset', onset), ('offset', offset)) if n is None)}",
            )
        )
    if counts is not None and onset is not None:
        own = _origin(numbers, onset, offset, counts)
        shift = COUNTINGS[own](numbers[0], onset)
        if own != counts:
            faults.append((STRAYS, f"by {shift:+d}: {own}"))
        elif shift:
            faults.append((REBASED, f"by {shift:+d}"))
        onset, apex, offset = (None if n is None else n + shift for n in (onset, apex, offset))
    onset, offset = (
        numbers[0] if onset is None else onset,
        numbers[-1] if offset is None else offset,
    )

    at = {
        name: nearest(numbers, n)
        for name, n in (("onset", onset), ("apex", apex), ("offset", offset))
        if n is not None
    }
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
    lost = [
        f"{name} {wanted[name]} → {numbers[i]}"
        for name, i in at.items()
        if i >= 0 and numbers[i] != wanted[name]
    ]
    if lost:
        faults.append((ABSENT, ", ".join(lost)))
    return Place(at["onset"], at["apex"], at["offset"], tuple(faults))


def nearest(numbers: Sequence[int], wanted: int) -> int:
    """Position of the number nearest to `wanted` in ascending `numbers`, of two the lower."""
    i = bisect.bisect_left(numbers, wanted)
    return min(
        (j for j in (i - 1, i) if 0 <= j < len(numbers)), key=lambda j: abs(numbers[j] - wanted)
    )


def counting(rows: Iterable[tuple[Sequence[int], int | None, int | None]]) -> Mapping[str, int]:
    """How many rows of a sheet speak for each of COUNTINGS, the most spoken for first; of equals the more particular claim.

    A row speaks for the first by which its onset and offset both lie among its files. A row without either, or with an offset that is not
    after its onset, and one that none of them fits, says nothing.

    Args:
      rows: of each the numbers of its files, ascending, its onset and its offset.
    """
    votes = collections.Counter(dict.fromkeys(COUNTINGS, 0))
    for numbers, onset, offset in rows:
        if onset is not None and offset is not None and onset < offset:
            beyond = {name: _beyond(numbers, onset, [onset, offset], name) for name in COUNTINGS}
            votes.update(
                [
                    name
                    for name in COUNTINGS
                    if beyond[name] <= (0 if COUNTINGS[name](numbers[0], onset) else CLOSE)
                ][:1]
            )
    return dict(votes.most_common())


def _origin(numbers: Sequence[int], onset: int, offset: int | None, counts: str) -> str:
    """How a row counts in a sheet that `counts`: as the sheet, unless its onset has no place among the files then.

    A sheet that counts from elsewhere leaves no row without a place. There a row goes its own way if its onset and offset lie among the
    files in a more particular one: numbers from elsewhere hardly do so by chance.
    """
    *particular, anywhere = COUNTINGS
    ends = [onset] if offset is None else [onset, offset]
    if counts == anywhere:
        own = next(
            (name for name in particular if not _beyond(numbers, onset, ends, name)), anywhere
        )
        return own if COUNTINGS[own](numbers[0], onset) != numbers[0] - onset else anywhere
    if _beyond(numbers, onset, [onset], counts) <= CLOSE:
        return counts
    return next(
        name
        for frames in (ends, [onset])
        for name in COUNTINGS
        if not _beyond(numbers, onset, frames, name)
    )


def _beyond(numbers: Sequence[int], onset: int, ends: Sequence[int], counts: str) -> int:
    """By how many frames `ends` of a row miss the files, 0 if they lie among them."""
    shift = COUNTINGS[counts](numbers[0], onset)
    return max(0, *(max(numbers[0] - n - shift, n + shift - numbers[-1]) for n in ends))
