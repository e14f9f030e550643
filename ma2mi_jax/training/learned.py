"""What a pre-training has learned so far: a look at the networks every so many steps.

Any source tells what F^p sees: where its map of a face is that of a grey image, or of the mean
face, it is a table of positions read off the zero padding, and of no face.

Drawn faces know the truth. So a look asks networks about people whom they never saw: how far L_rec
is below the copy and how far above its floors, whether DiT needs the C_Δ of this very pair, and how
much of the change of each action unit and of the pose can be read, by a linear map, from C_Δ and
from all places before they are pooled.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from sklearn.linear_model import RidgeCV

from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.images import to_float
from ma2mi_jax.losses import reconstruction_loss, unit
from ma2mi_jax.models.miacnet import features, fuse
from ma2mi_jax.training import pretraining
from ma2mi_jax.training.pretraining import Config, PretrainState

PAIRS = 512  # held-out people, half of whom fit the linear maps that are tested on the others
BATCH = 32
TABLE = 0.9  # cosine with the map of a grey image above which F^p hardly sees the face
SAME = 1e-4  # of what they could vary: features that vary less are the same for all clips
AT_COPY = 0.99  # share of the copy's L_rec above which nothing of the motion is predicted
WARM, EARLY = 100, 2000  # steps: before them features, and L_rec, are no sign of anything
PENALTIES = np.logspace(0, 8, 17)  # of ridge regression, chosen for each quantity

Look = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Pairs of people whom no dataset shows.

    Attributes:
      frames: (N, 2, H, W, 3) uint8.
      truth: (N, T), by how much each of T quantities changes in a pair.
      names: of the quantities: parts of the pose, then action units.
      pose: how many of them are of the pose.
      floors: the least L_rec of networks that know a part of the change, see `drawn.truth.floors`.
    """

    frames: UInt8[np.ndarray, "N 2 H W 3"]
    truth: Float[np.ndarray, "N T"]
    names: tuple[str, ...]
    pose: int
    floors: dict[str, float]


def held_out(
    spec: DatasetSpec,
    config: Config,
    vae_params: Any = None,
    pairs: int = PAIRS,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOut | None:
    """The pairs that looks at a pre-training on `spec` are about; None if its faces are not drawn.

    They are drawn if they are not kept from an earlier run.
    """
    if not registry.is_drawn(spec):
        return None
    from ma2mi_jax.datasets.drawn import portrait, truth

    found = truth.held_out_pairs(
        str(registry.cache_dir() / spec.name),
        pairs=pairs,
        size=config.architecture.image_size,
        delta=config.delta,
        seed=spec.data_seed,
        speech=spec.speech,
        progress=progress,
    )
    floors = {}
    if config.objective == "ma2mi":
        latent = jax.jit(partial(pretraining.latents, config, vae_params))
        floors = truth.floors(found, config.reconstruction_loss, latent=latent)
    return HeldOut(
        found.frames,
        np.concatenate([found.pose, found.units], axis=1),
        (*truth.POSE, *(f"AU{number}" for number in portrait.UNITS)),
        len(truth.POSE),
        floors,
    )


def look(
    config: Config,
    state: PretrainState,
    frames: UInt8[Array, "B 2 H W 3"],
    people: HeldOut | None,
    vae_params: Any = None,
) -> Look:
    """What the networks of `state` have learned.

    Args:
      frames: pairs of the source, for what F^p sees, where there are no held-out people.
      people: of a drawn source, else None.

    Returns:
      `step`; `c_delta_spread`, the share of the mean square of C_Δ that is its variance over the
      pairs. With a position encoder `position_grey` and `position_mean`, the cosines of F^p with
      the map of a grey image and with the mean map. With `people` also `r2_c_delta` and
      `r2_places`: R² by name, and their means `pose` and `units`; and, but for MAER, `loss_rec`,
      `loss_rec_other` (with the C_Δ of another pair) and `floors`.
    """
    found: Look = {"step": int(state.step)}
    shown = frames if people is None else people.frames
    found |= _floats(monitors(config, state, jnp.asarray(shown[:BATCH])))
    if people is None:
        return found

    parts = [
        _ask(config, state, people.frames[first : first + BATCH], vae_params)
        for first in range(0, len(people.frames), BATCH)
    ]
    for name in ("c_delta", "places"):
        read = r2(np.concatenate([part[name] for part in parts]), people.truth)
        by_name = dict(zip(people.names, read.tolist(), strict=True))
        means = {"pose": read[: people.pose], "units": read[people.pose :]}
        found[f"r2_{name}"] = {k: float(np.nanmean(v)) for k, v in means.items()} | by_name
    for name in ("loss_rec", "loss_rec_other"):
        if name in parts[0]:
            found[name] = float(np.mean([part[name] for part in parts]))
            found["floors"] = people.floors
    return found


def _floats(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


@partial(jax.jit, static_argnums=0)
def monitors(
    config: Config, state: PretrainState, pairs: UInt8[Array, "B 2 H W 3"]
) -> dict[str, Float[Array, ""]]:
    """Mean cosine, place by place, of F^p of faces with F^p of a grey image and with their mean;
    and how much of C_Δ differs from pair to pair."""
    network = config.architecture.miacnet(jnp.float32)
    grey = jnp.zeros((1, *pairs.shape[2:]))
    frame, future = (jnp.concatenate([to_float(pairs[:, i]), grey]) for i in (0, 1))
    weights = state.params["miacnet"], state.batch_stats
    maps, _ = features(network, *weights, frame, future)
    c_delta = config.architecture.condition(maps.action, maps.position)[:-1]
    square = jnp.mean(jnp.sum(c_delta**2, -1))
    found = {"c_delta_spread": jnp.sum(jnp.var(c_delta, 0)) / jnp.maximum(square, 1e-12)}
    if maps.position is None:
        return found
    positions = unit(maps.position)
    faces, of_grey = positions[:-1], positions[-1]
    return found | {
        "position_grey": jnp.mean(jnp.sum(faces * of_grey, -1)),
        "position_mean": jnp.mean(jnp.sum(faces * unit(faces.mean(0)), -1)),
    }


@partial(jax.jit, static_argnums=0)
def _ask(
    config: Config, state: PretrainState, pairs: UInt8[Array, "B 2 H W 3"], vae_params: Any
) -> dict[str, Array]:
    """Features of pairs, and L_rec with the C_Δ of the pair and with that of the next one."""
    frame, future = to_float(pairs[:, 0]), to_float(pairs[:, 1])
    architecture = config.architecture
    network = architecture.miacnet(jnp.dtype(config.dtype))
    weights = state.params["miacnet"], state.batch_stats
    maps, _ = features(network, *weights, frame, future)
    c_delta = architecture.condition(maps.action, maps.position)
    places = fuse(maps.action, maps.position, architecture.fusion)
    found = {"c_delta": c_delta, "places": places.reshape(len(places), -1)}
    if config.objective == "ma2mi":
        z, z_future = (pretraining.latents(config, vae_params, each) for each in (frame, future))
        conditions = {"loss_rec": c_delta, "loss_rec_other": jnp.roll(c_delta, 1, axis=0)}
        for name, condition in conditions.items():
            predicted = pretraining.predict_future(config, state.params["dit"], z, condition)
            found[name] = reconstruction_loss(predicted, z_future, config.reconstruction_loss)
    return found


def r2(seen: Float[np.ndarray, "N K"], truth: Float[np.ndarray, "N T"]) -> Float[np.ndarray, " T"]:
    """The share of each quantity's variance that a linear map of what is seen explains.

    Ridge regression is fitted on every second person and tested on the others, and the other way
    round. 0 is no better than the mean, and less is worse than it. NaN where nothing changes.
    """
    error, spread = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    people = np.arange(len(truth))
    for half in (0, 1):
        fit, test = people % 2 == half, people % 2 != half
        x = standardised(seen, fit)
        y = truth - truth[fit].mean(0)
        model = RidgeCV(PENALTIES, alpha_per_target=True).fit(x[fit], y[fit])
        error += ((y[test] - model.predict(x[test])) ** 2).sum(0)
        spread += (y[test] ** 2).sum(0)
    return np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1), np.nan)


def standardised(seen: Float[np.ndarray, "N K"], fit: np.ndarray) -> Float[np.ndarray, "N K"]:
    """Features less their means, divided by their spreads, both over the rows `fit`.

    A feature that is silent but for a few rows is not to outweigh all others, so a spread counts
    as a tenth of the mean spread at least.
    """
    mean, spread = seen[fit].mean(0), seen[fit].std(0)
    return (seen - mean) / np.maximum(spread, 0.1 * spread.mean() or 1.0)


def collapsed(found: Look, lines: Sequence[Mapping[str, Any]]) -> str:
    """What has collapsed by a look, and by the lines of the log since the last one; empty if
    nothing has."""
    what = []
    if found["step"] >= WARM and found["c_delta_spread"] < SAME:
        what.append(
            f"C_Δ is the same for all pairs (its variance is {found['c_delta_spread']:.0e} of its "
            "mean square)"
        )
    if found["step"] >= WARM and found.get("position_mean", 0) > 1 - SAME:
        what.append(f"F^p is the same for all faces (cosine {found['position_mean']:.5f})")
    if found["step"] >= EARLY and (known := [line for line in lines if "copy_baseline" in line]):
        predicted, copied = (
            np.mean([line[k] for line in known]) for k in ("loss_rec", "copy_baseline")
        )
        if predicted > AT_COPY * copied:
            what.append(f"L_rec is {predicted / copied:.3f} of what repeating the frame gives")
    if not what:
        return ""
    return f"step {found['step']}: {'; '.join(what)}: this run learns nothing of that any more"


def caution(config: Config, found: Look) -> str:
    """What a look says against statements about L_pos; empty if nothing, or if the run does not
    train L_pos: MAER never does."""
    trained = config.objective == "ma2mi" and config.position_loss
    if found.get("position_grey", 0) <= TABLE or not trained:
        return ""
    side = config.architecture.places
    return (
        f"step {found['step']}: F^p of a face is nearly that of a grey image (cosine "
        f"{found['position_grey']:.2f}): with {side} x {side} places it knows positions by the "
        "padding and hardly sees the face, so this run says nothing about L_pos"
    )
