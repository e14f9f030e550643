"""Onset and apex of a clip that has no annotation.

1. A frame becomes SIDE x SIDE grey values, less their mean and divided by their deviation, so that
   a flickering lamp is no motion. They are smoothed over time by a sixteenth of the clip. Then the
   change that a small shift, turn or zoom of the head would cause is removed (`_stilled`).
2. The first candidate for the onset is the first frame, because clips begin before the expression.
   The first candidate for the apex is the frame that differs most from it.
3. A curve gives each frame's share of the change from onset to apex: 0 at the onset, 1 at the apex.
   Noise, and motion of another kind than that change, hardly count. The apex is the peak of the
   curve. The onset is where the rise to the peak begins: the last frame before it that shows no
   more than RISE of the change.

The rule sees change, not muscles. If a blink, or a head that moves away, changes the face more than
the expression does, the rule takes that for the expression.
"""

from typing import NamedTuple

import numpy as np

from ma2mi_jax.clips import shots

SIDE = 32
RISE = 0.1


class Spotted(NamedTuple):
    """Onset and apex of a clip of n frames.

    Attributes:
      onset, apex: positions in the clip, `onset` < `apex`.
      curve: (n,) float32, 0 at the onset and 1 at the apex; 0 everywhere if nothing moves.
      contrast: the change from onset to apex, divided by the median change from one frame to the
        next. Near 1 the apex is no more than noise and shaking.
    """

    onset: int
    apex: int
    curve: np.ndarray
    contrast: float


def spot(frames: np.ndarray, onset: int | None = None, apex: int | None = None) -> Spotted:
    """Onset and apex of a face.

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

    raw = np.stack([shots.thumbnail(frame, SIDE, SIDE) for frame in frames])
    seen = _stilled(_smoothed(raw))

    start, peak = onset or 0, apex
    if peak is None:
        peak = start + 1 + int(np.abs(seen[start + 1 :] - seen[start]).mean(-1).argmax())

    curve = _progress(seen, start, peak)
    if apex is None:
        peak = start + 1 + int(curve[start + 1 :].argmax())
    if onset is None:
        start = int(np.flatnonzero(curve[:peak] <= RISE * curve[peak])[-1])

    step = np.median(np.linalg.norm(np.diff(raw, axis=0), axis=-1))
    contrast = np.linalg.norm(raw[peak] - raw[start]) / max(step, 1e-6)
    return Spotted(start, peak, _progress(seen, start, peak), float(contrast))


def _smoothed(thumbnails: np.ndarray) -> np.ndarray:
    """A running mean over time; at the ends it is the mean of fewer frames."""
    half = len(thumbnails) // 32
    return np.stack(
        [thumbnails[max(0, t - half) : t + half + 1].mean(0) for t in range(len(thumbnails))]
    )


def _stilled(thumbnails: np.ndarray) -> np.ndarray:
    """The thumbnails (n, SIDE * SIDE) without what small motions of the whole head explain.

    These motions are a shift along x or y, a zoom and a turn of the mean thumbnail, to first order.
    Their amounts are found by least squares.
    """
    down, right = np.gradient(thumbnails.mean(0).reshape(SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    zoom, turn = x * right + y * down, x * down - y * right
    motions = np.stack([m.ravel() for m in (right, down, zoom, turn)], axis=1).astype(np.float32)

    amounts = np.linalg.lstsq(motions, thumbnails.T, rcond=None)[0]
    return thumbnails - (motions @ amounts).T


def _progress(seen: np.ndarray, onset: int, apex: int) -> np.ndarray:
    """(n,) each frame's difference to the onset, projected onto that of the apex."""
    change = seen[apex] - seen[onset]
    return (seen - seen[onset]) @ change / max(float(change @ change), 1e-6)
