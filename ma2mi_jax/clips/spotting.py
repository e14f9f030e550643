"""Onset and apex of a clip that has no annotation, by how far each frame is on the way from the one to the other.

1. A frame becomes SIDE x SIDE grey values less their mean and over their deviation, so that a flickering lamp is no motion, smoothed
   over time by a sixteenth of the clip. What a small shift, turn or zoom of the head would change is taken out (`_stilled`).
2. The apex is the frame that differs most from the onset, the first frame being the first candidate: clips begin before the expression.
3. The curve is a frame's share of the change from onset to apex: 0 at the onset, 1 at the apex. Noise and motion of another kind
   than that change hardly count in it. The apex is put at its peak, the onset where the rise to the peak starts: at the last
   frame before it that shows no more than RISE of the change.

The rule sees change, not muscles: what changes the face more than the expression does, a blink or a head that moves away, is taken for it.
"""

from typing import NamedTuple

import numpy as np

from ma2mi_jax.clips import shots

SIDE = 32
RISE = 0.1


class Spotted(NamedTuple):
    """Positions `onset` < `apex` in the clip, and `curve` (n,) float32: 0 at the onset and 1 at the apex, or 0 throughout a still clip.

    `contrast` is the change from onset to apex over the median change from one frame to the next: near 1 the apex does not stand out
    from noise and shaking.
    """

    onset: int
    apex: int
    curve: np.ndarray
    contrast: float


def spot(frames: np.ndarray, onset: int | None = None, apex: int | None = None) -> Spotted:
    """Onset and apex of a face crop's frames, uint8 (n, h, w, 3), n >= 2; a position that is given is kept.

    Raises:
      ValueError: fewer than two frames, or given positions outside of the clip or out of order.
    """
    last = len(frames) - 1
    if last < 1:
        raise ValueError(f"{len(frames)} frame(s): onset and apex need two")
    if (
        not (0 if onset is None else onset) < (last if apex is None else apex) <= last
        or (onset or 0) < 0
    ):
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
    """A running mean over time; at the ends, of the frames there are."""
    half = len(thumbnails) // 32
    return np.stack(
        [thumbnails[max(0, t - half) : t + half + 1].mean(0) for t in range(len(thumbnails))]
    )


def _stilled(thumbnails: np.ndarray) -> np.ndarray:
    """Less the part that a shift along x or y, a zoom and a turn of the mean thumbnail explain, to first order (least squares)."""
    down, right = np.gradient(thumbnails.mean(0).reshape(SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    motions = np.stack(
        [m.ravel() for m in (right, down, x * right + y * down, x * down - y * right)], axis=1
    ).astype(np.float32)
    return thumbnails - (motions @ np.linalg.lstsq(motions, thumbnails.T, rcond=None)[0]).T


def _progress(seen: np.ndarray, onset: int, apex: int) -> np.ndarray:
    """(n,) each frame's difference to the onset, projected onto that of the apex."""
    change = seen[apex] - seen[onset]
    return (seen - seen[onset]) @ change / max(float(change @ change), 1e-6)
