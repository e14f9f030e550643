"""Onset and apex of a clip that has no annotation.

1. A frame becomes SIDE x SIDE grey values, less their mean and divided by their deviation, so that
   a flickering lamp is no motion. They are smoothed over time by a sixteenth of what an expression
   takes at most. Then the change that a small shift, turn or zoom of the head would cause is
   removed (`_stilled`).
2. A micro-expression begins and ends within half a second. So where the frame rate is known, onset
   and apex are looked for in a window of so many frames. A window's middle is a frame that differs
   most from the mean of the two frames at the window's ends: there something came and went.
3. In a window the first candidate for the onset is its first frame, because clips begin before the
   expression. The first candidate for the apex is the frame that differs most from it.
4. A curve gives each frame's share of the change from onset to apex: 0 at the onset, 1 at the apex.
   Noise, and motion of another kind than that change, hardly count. The apex is the peak of the
   curve. The onset is where the rise to the peak begins: the last frame before it that shows no
   more than RISE of the change.

The rule sees change, not muscles. If a blink changes the face more than the expression does, the
rule takes that for the expression. How much of the change is the head's, `head.py` says.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ma2mi_jax.clips import head, shots

SIDE = 32
RISE = 0.1
LONG = 6  # times an expression's rise: with its fall it then takes a third of the clip


class Spotted(NamedTuple):
    """Onset and apex of a clip of n frames.

    Attributes:
      onset, apex: positions in the clip, `onset` < `apex`.
      curve: (n,) float32, 0 at the onset and 1 at the apex; 0 everywhere if nothing moves.
      contrast: the change of the face from onset to apex, without the head's, divided by what else
        changes in the clip (see `_contrast`). Near 1 the apex is no more than noise, or than the
        speech that fills the clip.
    """

    onset: int
    apex: int
    curve: np.ndarray
    contrast: float


def spot(frames: np.ndarray, onset: int | None = None, apex: int | None = None) -> Spotted:
    """Onset and apex of a face, in the whole clip.

    Args:
      frames: (n, h, w, 3) uint8 face crops, n >= 2.
      onset, apex: positions that are known already; they are kept.

    Raises:
      ValueError: fewer than two frames, or given positions outside of the clip or out of order.
    """
    last = len(frames) - 1
    if last < 1:
        raise ValueError(f"{len(frames)} frame(s): onset and apex need two")
    earliest, latest = onset or 0, last if apex is None else apex
    if not 0 <= earliest < latest <= last:
        raise ValueError(
            f"onset {onset}, apex {apex}: expected 0 <= onset < apex <= {last}, the last frame"
        )
    return _spot(_thumbnails(frames, len(frames)), onset, apex)


def candidates(frames: np.ndarray, longest: int) -> list[Spotted]:
    """Every place where an expression of at most `longest` frames may be, the strongest first.

    A clip of no more frames has one candidate. In a longer one no two candidates are nearer to each
    other than `longest` frames. The strength is the contrast.

    Args:
      frames: (n, h, w, 3) uint8 face crops, n >= 2.
      longest: frames from onset to offset, >= 2.

    Raises:
      ValueError: fewer than two frames.
    """
    if len(frames) <= longest + 1:
        return [spot(frames)]
    seen = _thumbnails(frames, longest)
    found = [_spot(seen, within=window) for window in _windows(_activity(seen, longest), longest)]
    return sorted(found, key=lambda each: -each.contrast)


def activity(frames: np.ndarray, longest: int) -> np.ndarray:
    """How much comes and goes at each frame, within `longest` frames, (n,) float32 >= 0.

    It is the distance of a frame from the mean of the two frames at its window's ends, divided by
    its median.
    """
    found = _activity(_thumbnails(frames, longest), longest)
    return found / max(float(np.median(found)), 1e-6)


class _Thumbnails(NamedTuple):
    """A clip as (n, SIDE * SIDE) float32 thumbnails without small motions of the head.

    Attributes:
      sharp: each frame's own.
      smooth: smoothed over time before.
    """

    sharp: np.ndarray
    smooth: np.ndarray


def _thumbnails(frames: np.ndarray, longest: int) -> _Thumbnails:
    raw = np.stack([shots.thumbnail(frame, SIDE, SIDE) for frame in frames])
    return _Thumbnails(_stilled(raw), _stilled(_smoothed(raw, longest // 32)))


def _contrast(seen: _Thumbnails, onset: int, apex: int) -> float:
    """The change from onset to apex, over the median change between frames that lie as far apart.

    An expression may fill the greater part of a clip of less than LONG times that many frames. So
    there it is over the median change from one frame to the next, both of them not smoothed.
    """
    lag = apex - onset
    filled = len(seen.sharp) <= LONG * lag
    of, lag = (seen.sharp, 1) if filled else (seen.smooth, lag)
    usual = float(np.median(np.linalg.norm(of[lag:] - of[:-lag], axis=-1)))
    return float(np.linalg.norm(of[apex] - of[onset])) / max(usual, 1e-6)


def _activity(seen: _Thumbnails, longest: int) -> np.ndarray:
    smooth, half = seen.smooth, max(1, longest // 2)
    at = np.arange(len(smooth))
    ends = (np.maximum(at - half, 0), np.minimum(at + half, len(smooth) - 1))
    return np.linalg.norm(smooth - (smooth[ends[0]] + smooth[ends[1]]) / 2, axis=-1)


def _windows(change: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """First frame and end of windows of at most `longest` + 1 frames, the most changed first."""
    half, count = max(1, longest // 2), len(change)
    free = np.ones(count, bool)
    free[[0, -1]] = False  # an end of the clip is not the middle of a window
    while free.any():
        middle = int(np.where(free, change, -1).argmax())
        yield max(0, middle - half), min(count, middle + half + 1)
        free[max(0, middle - longest) : middle + longest + 1] = False


def _spot(
    seen: _Thumbnails,
    onset: int | None = None,
    apex: int | None = None,
    within: tuple[int, int] | None = None,
) -> Spotted:
    smooth = seen.smooth
    first, end = within or (0, len(smooth))
    start, peak = first if onset is None else onset, apex
    if peak is None:
        rest = smooth[start + 1 : end]
        peak = start + 1 + int(np.abs(rest - smooth[start]).mean(-1).argmax())

    curve = _progress(smooth, start, peak)
    if apex is None:
        peak = start + 1 + int(curve[start + 1 : end].argmax())
    if onset is None:
        start = first + int(np.flatnonzero(curve[first:peak] <= RISE * curve[peak])[-1])

    return Spotted(start, peak, _progress(smooth, start, peak), _contrast(seen, start, peak))


def _smoothed(thumbnails: np.ndarray, half: int) -> np.ndarray:
    """A running mean over 2 `half` + 1 frames; at the ends it is the mean of fewer frames."""
    return np.stack(
        [thumbnails[max(0, t - half) : t + half + 1].mean(0) for t in range(len(thumbnails))]
    )


def _stilled(thumbnails: np.ndarray) -> np.ndarray:
    """The thumbnails (n, SIDE * SIDE) without what small motions of the whole head explain.

    These motions are a shift along x or y, a zoom and a turn of the mean thumbnail, to first order.
    Their amounts are found by least squares.
    """
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    ways = head.ways(thumbnails.mean(0).reshape(SIDE, SIDE), x, y)
    motions = np.stack([way.ravel() for way in ways], axis=1).astype(np.float32)

    amounts = np.linalg.lstsq(motions, thumbnails.T, rcond=None)[0]
    return thumbnails - (motions @ amounts).T


def _progress(seen: np.ndarray, onset: int, apex: int) -> np.ndarray:
    """(n,) each frame's difference to the onset, projected onto that of the apex."""
    change = seen[apex] - seen[onset]
    return (seen - seen[onset]) @ change / max(float(change @ change), 1e-6)
