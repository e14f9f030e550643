"""Reading pairs by PyTorch's DataLoader, a process for each core."""

import itertools
import os
from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Built, peak_of_process
from benchmarks.reading import last_of_turn, many
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.pairs import DEFAULT_DELTA, future_pair, read_pair


class Pairs(Dataset):
    """A pair of each clip, decoded as ours are: only the machinery around it differs."""

    def __init__(self, clips: Sequence[Clip], size: int):
        self.clips, self.size = clips, size

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        clip = self.clips[index]
        wanted = future_pair(len(clip.frames), np.random.default_rng(), delta=DEFAULT_DELTA)
        return read_pair(clip, wanted, self.size, distinct=True)[1]


def build(clips: Sequence[Clip], size: int, batch_size: int) -> Built:
    """`reading.BATCHES` batches; it gives the last."""
    loader = DataLoader(
        Pairs(many(clips), size),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count() or 1,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    return Built(lambda: last_of_turn(endless), peak_of_process)
