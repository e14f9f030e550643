"""How the head moves between two frames of one face crop, and how much of their change that is.

The second frame is laid on the first by a shift, a zoom and a turn, found by least squares on grey
thumbnails (Lucas and Kanade). What is left of the change is the face's own, and noise.
"""

from typing import NamedTuple

import cv2
import numpy as np

from ma2mi_jax.clips import shots

SIDE = 64  # of a thumbnail
BORDER = 4  # places at its border that may come from outside of the crop
STEPS = 8  # of Gauss-Newton; a head that moves by a tenth of the crop is followed


class Motion(NamedTuple):
    """How the head moves from one frame to another.

    Attributes:
      x, y: shift, as shares of the crop's side; right and down are positive.
      zoom: by how much the face grows; 0.01 is one per cent.
      turn: in the plane of the picture, radians.
      share: of the squared change between the frames that this motion explains, in [0, 1].
    """

    x: float
    y: float
    zoom: float
    turn: float
    share: float

    @property
    def size(self) -> float:
        """The root mean square way of a point of the crop, as a share of the crop's side."""
        # The mean square distance of a point of the unit square from its centre is 1/6.
        return float(np.sqrt(self.x**2 + self.y**2 + (self.zoom**2 + self.turn**2) / 6))


def motion(before: np.ndarray, after: np.ndarray) -> Motion:
    """The head's motion between two face crops of one size, (h, w, 3) uint8 RGB."""
    target, source = (_grey(frame) for frame in (before, after))
    inside = (slice(BORDER, -BORDER),) * 2
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2
    total = float(np.square((target - source)[inside]).sum())

    amounts, best, least = np.zeros(4), np.zeros(4), total
    for _ in range(STEPS):
        moved = _moved(source, amounts)
        columns = np.stack([way[inside].ravel() for way in ways(moved, x, y)], axis=1)
        amounts = (
            amounts + np.linalg.lstsq(columns, (target - moved)[inside].ravel(), rcond=None)[0]
        )
        left = float(np.square((target - _moved(source, amounts))[inside]).sum())
        if left < least:
            best, least = amounts, left
    shift_x, shift_y, zoom, turn = best.tolist()
    share = 1 - least / total if total else 0.0
    return Motion(shift_x / SIDE, shift_y / SIDE, zoom, turn, share)


def ways(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """How a grey image changes, to first order, by a shift right and down, a zoom and a turn.

    Args:
      image: (h, w).
      x, y: (h, w), each place's coordinates from the centre, in any unit; those of zoom and turn.
    """
    down, right = np.gradient(image)
    return right, down, x * right + y * down, x * down - y * right


def _grey(frame: np.ndarray) -> np.ndarray:
    return shots.thumbnail(frame, SIDE, SIDE).reshape(SIDE, SIDE)


def _moved(image: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """The image whose place (x, y) from the centre shows what lies at the moved place."""
    shift_x, shift_y, zoom, turn = amounts
    centre = (SIDE - 1) / 2
    matrix = np.array([[1 + zoom, -turn, shift_x], [turn, 1 + zoom, shift_y]])
    matrix[:, 2] += centre - matrix[:, :2] @ (centre, centre)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
