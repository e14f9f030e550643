"""Fig. 5: what a pre-trained network predicts, drawn pair by pair."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ma2mi_jax.clips import pairs
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.evaluation import drawing
from ma2mi_jax.images import to_float
from ma2mi_jax.training import pretraining

PICTURES = 8  # rows of a pre-training's own picture
FUTURE = ("frame  $I_t$", "future  $I_{t+\\delta}$", "predicted  $\\hat I_{t+\\delta}$")


def draw(
    path: pathlib.Path,
    config: pretraining.Config,
    state: pretraining.PretrainState,
    vae_params: Any,
    frames: np.ndarray,
    names: Sequence[str],
    title: str,
    moments: tuple[str, str, str] = FUTURE,
) -> float:
    """Draws pairs, frames (N, 2, H, W, 3) uint8, with the predicted frame and both changes.

    Returns:
      The mean error of the prediction over that of repeating the first frame; in latent space both
      are decoded.
    """
    predicted, copied = pretraining.reconstruct(config, state, frames, vae_params)
    first, second = (np.asarray(to_float(jnp.asarray(frames[:, k]))) for k in range(2))
    drawing.reconstructions(path, first, second, predicted, copied, names, title, moments)
    return np.abs(predicted - second).mean() / np.abs(copied - second).mean()


def draw_pretraining(
    path: pathlib.Path,
    config: pretraining.Config,
    state: pretraining.PretrainState,
    clips: Sequence[Clip],
    vae_params: Any,
) -> None:
    """The picture of a pre-training, by a stated rule: clips evenly spaced in the dataset, of each
    the middle pair with the largest δ."""
    places = np.linspace(0, len(clips) - 1, min(PICTURES, len(clips))).round().astype(int)
    shown = []
    for clip in (clips[i] for i in places):
        last = len(clip.frames) - 1
        delta = min(config.delta[1], last)
        first = (last - delta) // 2
        shown.append(dataclasses.replace(clip, onset=first, apex=first + delta))
    frames, _ = pairs.load_pairs(shown, config.architecture.image_size)
    names = [f"{clip.id[-24:]}\n{clip.onset} → {clip.apex}" for clip in shown]
    title = (
        "evenly spaced clips, the middle pair with the largest δ; "
        "changes amplified as written below them"
    )
    draw(path, config, state, vae_params, frames, names, title)
