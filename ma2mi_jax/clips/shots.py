"""Where a video has cuts.

A pair (t, t + δ) must never span two shots, and a face box holds for one shot only.

Frames are compared as thumbnails of 32×24 grey values, without their brightness and contrast, so
that a camera's automatic exposure is no cut. The change between neighbours is 1 − their
correlation. It was at most 0.11 in 2,100 frames of speakers, signers and a man who moves in front
of a webcam; it was 0.25 and more between two speakers in front of the same wall.
"""

import itertools
import math
from collections.abc import Sequence

import cv2
import numpy as np

THRESHOLD = 0.15  # a change below this is motion
OUTLIER = 3.0  # a cut is this many times the change around it; a fast pan or a shaken camera is not
NEIGHBOURS = 4  # changes on each side that are "around it"


def thumbnail(image: np.ndarray, width: int = 32, height: int = 24) -> np.ndarray:
    """The grey values of a small picture, less their mean and divided by their deviation.

    Args:
      image: (h, w, 3) uint8 RGB.

    Returns:
      (height * width,) float32, about 0 for a blank frame.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).ravel()
    # plus 1 grey level, for the noise of a black frame is no picture
    return (small - small.mean()) / (small.std() + 1.0)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Half the mean squared difference of two thumbnails.

    This is 1 − correlation for two pictures, and 0.5 for a picture and a blank frame.
    """
    return float(np.square(after - before).mean() / 2)


def cuts(changes: Sequence[float]) -> list[int]:
    """The positions at which a new shot begins.

    A cut is a change above THRESHOLD that is also above OUTLIER times the median of the NEIGHBOURS
    changes before it and after it. So a clip of two frames, which may be onset and apex, has no
    cut.

    Args:
      changes: `changes[i]` is the change from frame i − 1 to frame i; `changes[0]` is not used.
    """
    found = []
    for i in range(1, len(changes)):
        near = [*changes[max(1, i - NEIGHBOURS) : i], *changes[i + 1 : i + 1 + NEIGHBOURS]]
        if changes[i] > THRESHOLD and near and changes[i] > OUTLIER * np.median(near):
            found.append(i)
    return found


def spans(changes: Sequence[float], longest: int) -> list[tuple[int, int]]:
    """The shots as pairs of frame positions: the first frame, and the one after the last.

    Args:
      changes: as for `cuts`.
      longest: a shot of more frames than this is divided into equal parts that are no longer.
    """
    edges = [0, *cuts(changes), len(changes)]
    found = []
    for first, end in itertools.pairwise(edges):
        parts = math.ceil((end - first) / longest)
        inner = np.linspace(first, end, parts + 1).astype(int).tolist()
        found += itertools.pairwise(inner)
    return found
