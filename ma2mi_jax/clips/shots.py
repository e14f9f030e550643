"""Where a video is cut: a pair (t, t + δ) must never straddle two shots, and a face box holds for one shot only.

Frames are compared as thumbnails of 32×24 grey values, freed of brightness and contrast, so that a camera's automatic exposure is
no cut. The change between neighbours is then 1 − their correlation: at most 0.11 in 2,100 frames of speakers, signers and a man who
moves before a webcam; 0.25 and more between two speakers before the same wall.
"""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

THRESHOLD = 0.15  # a change below this is motion
OUTLIER = 3.0  # a cut changes the picture this many times as much as its neighbours do; a fast pan or a shaken camera does not
NEIGHBOURS = 4  # on each side


def thumbnail(image: np.ndarray, width: int = 32, height: int = 24) -> np.ndarray:
    """uint8 RGB (h, w, 3) → float32 (height * width,): grey values less their mean, over their deviation; about 0 for a blank frame."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).ravel()
    return (small - small.mean()) / (
        small.std() + 1.0
    )  # + 1 grey level: the noise of a black frame is no picture


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Half the mean squared difference of two thumbnails: 1 − correlation, or 0.5 between a picture and a blank frame."""
    return float(np.square(after - before).mean() / 2)


def cuts(changes: Sequence[float]) -> list[int]:
    """The positions i at which frame i opens a new shot, `changes[i]` being the change from frame i − 1 to i (`changes[0]` is not used).

    A cut is a change above THRESHOLD and above OUTLIER times the median of the NEIGHBOURS changes before it and after it; so two frames
    alone, which may be onset and apex, have no cut.
    """
    found = []
    for i in range(1, len(changes)):
        near = [*changes[max(1, i - NEIGHBOURS) : i], *changes[i + 1 : i + 1 + NEIGHBOURS]]
        if changes[i] > THRESHOLD and near and changes[i] > OUTLIER * np.median(near):
            found.append(i)
    return found


def spans(changes: Sequence[float], longest: int) -> list[tuple[int, int]]:
    """The shots as (first, end) frame positions; one of more than `longest` frames is divided into equal parts that are no longer."""
    edges = [0, *cuts(changes), len(changes)]
    parts = []
    for first, end in itertools.pairwise(edges):
        inner = np.linspace(first, end, -(-(end - first) // longest) + 1).astype(int).tolist()
        parts += itertools.pairwise(inner)
    return parts
