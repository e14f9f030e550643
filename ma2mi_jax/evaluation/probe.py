"""The probe: what a frozen network's features tell about faces that it has not seen.

A logistic regression is fitted on the features of onset/apex pairs, leaving one subject out at a
time. Nothing of the network is trained, so the whole takes a minute. Random weights are the
control: a network that has learned nothing lets something of the picture through as well.
"""

import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.evaluation import outcome
from ma2mi_jax.evaluation import predictions as scored
from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import features, fuse
from ma2mi_jax.runs.compiling import ONCE
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finetuning, initial, members, run_files
from ma2mi_jax.training.finetuning import Data
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.initial import Initial
from ma2mi_jax.training.learned import standardised
from ma2mi_jax.training.run_config import FinetuneRun

FEATURES = {
    "c_delta": "C_Δ",
    "all_places": "F^a and F^p fused, all places",
    "action_mean": "F^a, mean over places",
    "action_all_places": "F^a, all places",
}
"""What is probed, in words."""

STRENGTH = 10.0  # scikit-learn's C; see `probabilities`
RANK = 1e-12  # smallest eigenvalue of a kernel, as a share of the largest, that is no rounding
BATCH = 16  # pairs

Weights = tuple[Any, Any]
"""`params` {miacnet, ...} and `batch_stats` of MIACNet."""


# ----- networks -----------------------------------------------------------------------------------


def read(run: FinetuneRun) -> Initial:
    """The network to probe: what this fine-tuning would start from.

    Raises:
      UserError: `run.init`, here called `run`, is neither a pre-training run nor `none`; or it has
        other networks than those asked for.
    """
    path = pathlib.Path(run.init)
    if path.is_file():
        raise UserError(
            "[run={path}]: is a file; expected the folder of a pre-training run, or none. "
            "BatchNorm statistics in a file of weights are not those of differences of frames, so "
            "pre-train from it first",
            path=path,
        )
    if run.init != "none" and not path.is_dir():
        raise UserError(
            "[run={path}]: no such folder; expected a pre-training run (runs/...), or none",
            path=path,
        )
    if run.init != "none" and run_files.read(path).script == "finetune":
        raise UserError(
            "[run={path}]: is a fine-tuning, whose folds have seen labelled subjects; "
            "give the pre-training run that it started from, or none",
            path=path,
        )
    with parameters_called(init="run"):
        return initial.read(run)


def random_weights(architecture: Architecture, seed: int) -> Weights:
    """A network that has learned nothing: what a fine-tuning from scratch starts from.

    Its running BatchNorm statistics are means of 0 and variances of 1. With the statistics of real
    activations random weights tell less (docs/choices.md), so this is the harder control.
    """
    config = finetuning.Config(architecture, classes=1)
    state = jax.jit(finetuning.init, static_argnums=0, **ONCE)(config, jax.random.key(seed))
    return state.params, state.batch_stats


# ----- features -----------------------------------------------------------------------------------


def features_of(
    architecture: Architecture, weights: Weights, data: Data, listener: Listener = SILENT
) -> dict[str, Float[np.ndarray, "N _"]]:
    """The `FEATURES` of every pair, by running BatchNorm statistics, in float32.

    Without a position encoder (fusion `action`) the last two are left out: they are the first two.

    Args:
      data: onset/apex pairs, see `members.load_data`.
    """
    (params, batch_stats), count = weights, len(data["label"])
    # The last batch is filled up by repeats: batches of one shape need one compilation.
    rows = np.resize(np.arange(count), -(-count // BATCH) * BATCH).reshape(-1, BATCH)
    parts = []
    with listener.progress("features", len(rows)) as advance:
        for at_hand, places in members.batches_at_hand(data, rows):
            pairs = jnp.asarray(at_hand["frames"][places])
            found = _features_of_batch(architecture, params["miacnet"], batch_stats, pairs)
            parts.append(jax.device_get(found))
            advance()
    names = [name for name in FEATURES if name in parts[0]]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in names}


@partial(jax.jit, static_argnums=0)
def _features_of_batch(
    architecture: Architecture, params: Any, batch_stats: Any, pairs: UInt8[Array, "B 2 H W 3"]
) -> dict[str, Float[Array, "B _"]]:
    network, frames = architecture.miacnet(jnp.float32), to_float(pairs)
    maps, _ = features(network, params, batch_stats, frames[:, 0], frames[:, 1])
    fused = fuse(maps.action, maps.position, architecture.fusion)
    found = {
        "c_delta": architecture.condition(maps.action, maps.position),
        "all_places": fused.reshape(len(pairs), -1),
    }
    if maps.position is not None:
        found["action_mean"] = maps.action.mean((1, 2))
        found["action_all_places"] = maps.action.reshape(len(pairs), -1)
    return found


# ----- logistic regression ------------------------------------------------------------------------


def probabilities(
    seen: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], fold: Fold, classes: int
) -> Float[np.ndarray, "tested classes"]:
    """Class probabilities of a fold's test clips, by an L2-regularised logistic regression.

    It is fitted on the fold's training clips. So are the mean and spread of each feature, and one
    scale, by which the mean squared length of a training clip's features becomes 1. Without that,
    one strength of regularisation would mean something else for 128 features than for 32,768.

    The strength is fixed, so that nothing is chosen on a test subject: C = 10. On drawn faces
    the scores hardly change from there up to 1,000. Below, the largest classes win and UF1 falls
    (docs/choices.md).

    There may be a hundred times as many features as clips. The best weights are a combination of
    the training clips' features, so it is enough to fit on the coordinates of all clips in the
    space that the training clips span: this is exact, and the number of features is gone.
    """
    train = fold.train
    known = np.unique(labels[train])
    found = np.zeros((len(fold.test), classes))
    if len(known) == 1:  # nothing to tell apart
        found[:, known] = 1
        return found

    x = standardised(seen.astype(np.float64), train)
    x /= np.sqrt(np.mean(np.sum(x[train] ** 2, axis=1))) or 1.0
    kernel = x @ x[train].T  # (N, n)
    values, vectors = np.linalg.eigh(kernel[train])
    values = np.maximum(values, np.finfo(float).tiny)
    kept = values >= RANK * values[-1]
    coordinates = kernel @ (vectors[:, kept] / np.sqrt(values[kept]))  # (N, rank)

    model = LogisticRegression(C=STRENGTH, tol=1e-6, max_iter=10_000)
    model.fit(coordinates[train], labels[train])
    found[:, known] = model.predict_proba(coordinates[fold.test])
    return found


def frequencies(
    labels: Int[np.ndarray, " N"], fold: Fold, classes: int
) -> Float[np.ndarray, "tested classes"]:
    """The share of each class in a fold's training clips, for each test clip.

    The greatest is the majority class: what can be said without a look at the faces.
    """
    shares = np.bincount(labels[fold.train], minlength=classes) / len(fold.train)
    return np.tile(shares, (len(fold.test), 1))


# ----- all of it ----------------------------------------------------------------------------------


def probe(
    dataset: Dataset,
    all_folds: Sequence[Fold],
    networks: Mapping[str, Mapping[str, Float[np.ndarray, "N _"]]],
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Probes the features of one network or more over the same clips and folds.

    Args:
      networks: name -> its `features_of` all clips.

    Returns:
      `n`, `subjects`, `classes`; `majority`, the scores of the majority class; `networks`, for each
      network and each of its features `values` (how many) and `predictions.summary`; and
      `difference`, of the first network to each other one, see `predictions.compare`.
    """
    clips, classes = dataset.clips, dataset.classes
    labels = np.array([clip.label for clip in clips])

    def pooled(of_fold) -> scored.Predictions:
        found = np.full((1, len(clips), len(classes)), np.nan)
        for fold in all_folds:
            found[0, fold.test] = of_fold(fold)
        return outcome.predictions_of(clips, all_folds, [0], found)

    guessed, count = {}, len(all_folds) * sum(map(len, networks.values()))
    # The matrices are small: more threads only wait for each other, fortyfold on a busy machine.
    with threadpool_limits(1), listener.progress("logistic regressions", count) as advance:

        def fitted(seen: np.ndarray, fold: Fold) -> np.ndarray:
            found = probabilities(seen, labels, fold, len(classes))
            advance()
            return found

        for network, of_network in networks.items():
            guessed[network] = {
                name: pooled(partial(fitted, seen)) for name, seen in of_network.items()
            }

    majority = pooled(lambda fold: frequencies(labels, fold, len(classes)))
    of_majority = scored.summary(majority, classes)
    first, *others = guessed
    return {
        **{key: of_majority[key] for key in ("n", "subjects", "classes")},
        "C": STRENGTH,
        "majority": of_majority,
        "networks": {
            network: {
                name: {
                    "values": networks[network][name].shape[1],
                    **scored.summary(found, classes),
                }
                for name, found in of_network.items()
            }
            for network, of_network in guessed.items()
        },
        "difference": {
            other: {
                name: scored.compare(found, guessed[other][name], len(classes))
                for name, found in guessed[first].items()
            }
            for other in others
        },
    }
