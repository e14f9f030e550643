"""The smallest runs, made once and copied: what faults are done to, and what the end is compared
with."""

import functools
import json
import os
import pathlib
import shutil
import warnings

import commands
import numpy as np
from verdicts import TO_COMPILE, Done, run

PLACE = pathlib.Path("/tmp/faults-of-ma2mi")  # `begin` says where

PRETRAIN = [
    *("pretrain", "--source=synthetic", "--preset=smoke", "--space=pixel", "--clips=4"),
    *("--steps=6", "--batch-size=2", "--checkpoint-every=1", "--log-every=1", "--workers=0"),
    *("--look-every=0", "--fusion=action"),  # half as much to compile
]
FINETUNE = [
    *("finetune", "--target=synthetic", "--preset=smoke", "--init=none", "--subjects=2"),
    *("--clips-per-subject=4", "--epochs=3", "--checkpoint-every=1", "--batch-size=4"),
    "--fold-chunk=1",
]


def begin(place: pathlib.Path) -> None:
    """Everything that is shared lies in this folder."""
    global PLACE
    PLACE = place
    place.mkdir(parents=True, exist_ok=True)


def environment() -> dict[str, str]:
    """Of all commands: one device, quick compilation, caches of their own."""
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(PLACE / "xla")
    return commands.one_device(
        JAX_PLATFORMS="cpu",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
        JAX_COMPILATION_CACHE_DIR=kept,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        MA2MI_CACHE=str(PLACE / "cache"),
    )


def well(done: Done) -> Done:
    """Of a command that must succeed."""
    if done.code != 0:
        raise SystemExit(f"the harness cannot begin: exit code {done.code}\n{done.err[-2000:]}")
    return done


def _made(name: str, words: list, out: str) -> pathlib.Path:
    folder = PLACE / name
    if not folder.exists():
        part = PLACE / f"{name}.making"
        shutil.rmtree(part, ignore_errors=True)
        well(run([*words, f"--{out}={part}"], environment(), work=TO_COMPILE))
        part.rename(folder)
    return folder


@functools.cache
def pretrained() -> pathlib.Path:
    """A finished pre-training that nothing disturbed."""
    return _made("pretrained", PRETRAIN, "run")


@functools.cache
def finetuned() -> pathlib.Path:
    """A finished fine-tuning that nothing disturbed."""
    return _made("finetuned", FINETUNE, "run")


@functools.cache
def frames() -> pathlib.Path:
    """A folder of clips: two folders of face crops."""
    import drawn

    if (PLACE / "frames").exists():  # records of prepared data hold the times of these files
        return PLACE / "frames"
    for name in "ab":
        images = [drawn.face(48, 40, 70, (96, 96), mouth=i % 4 / 4) for i in range(160)]
        drawn.image_folder(PLACE / "frames" / name, images)
    return PLACE / "frames"


@functools.cache
def autoencoder() -> pathlib.Path:
    """A folder with a tiny autoencoder of random weights."""
    import jax

    from ma2mi_jax.models import autoencoder
    from ma2mi_jax.models.weights import diffusers

    params = autoencoder.init(jax.random.key(0), autoencoder.TINY)
    diffusers.save(PLACE / "vae", autoencoder.TINY, params)
    return PLACE / "vae"


def preparation() -> list[str]:
    return [
        *("prepare", "--source=folder", f"--data-root={frames()}", "--size=64"),
        *("--latents", f"--vae={autoencoder()}", "--batch-size=16"),
    ]


@functools.cache
def prepared() -> pathlib.Path:
    """Prepared data with latents, in more than one shard."""
    return _made("prepared", preparation(), "out")


@functools.cache
def resnet() -> pathlib.Path:
    """A file of the weights of an encoder of preset smoke."""
    import jax
    import jax.numpy as jnp

    from ma2mi_jax.models.architecture import PRESETS
    from ma2mi_jax.models.resnet import ResNet18
    from ma2mi_jax.models.weights import torchvision

    smoke = PRESETS["smoke"]
    network = ResNet18(smoke.width, blocks=smoke.blocks)
    found = jax.jit(network.init, static_argnums=2)(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False
    )
    torchvision.write(
        PLACE / "resnet.safetensors", found["params"], found["batch_stats"], "position_encoder"
    )
    return PLACE / "resnet.safetensors"


# ----- what an end is compared with ---------------------------------------------------------------

TIMES = {"pairs_per_second", "seconds", "steps_this_session", "frames_replaced_since_step"}
MADE = {"command", "versions", "made", "commit"}


def difference(folder: pathlib.Path, reference: pathlib.Path) -> str:
    """Where two finished runs or prepared folders differ; empty if they are the same to the byte,
    but for times and for what only orbax names."""
    names = {
        str(path.relative_to(top))
        for top in (folder, reference)
        for path in top.rglob("*")
        if path.is_file() and _counts(path.relative_to(top))
    }
    for name in sorted(names):
        a, b = folder / name, reference / name
        if not (a.is_file() and b.is_file()):
            return f"{name} is missing" if b.is_file() else f"{name} is too much"
        if _content(a) != _content(b):
            return f"{name} differs"
    last = sorted(path.name for path in (reference / "checkpoints").glob("[0-9]*"))
    for step in last if (reference / "predictions.csv").exists() else last[-1:]:
        a, b = (weights(top / "checkpoints" / step) for top in (folder, reference))
        if a.keys() != b.keys() or any((a[k] != b[k]).any() for k in a):
            return f"the weights in checkpoints/{step} differ"
    return ""


def _counts(path: pathlib.Path) -> bool:
    is_history = path.name.startswith("history")
    is_own = path.parts[0] == "checkpoints" and not is_history
    return not (is_own or path.suffix in (".png", ".part") or path.name.startswith("events.out"))


def _content(path: pathlib.Path):
    if path.suffix == ".json" and path.name != "prepared.json":
        return _without_times(json.loads(path.read_text()))
    if path.name == "metrics.jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _without_times(value):
    if isinstance(value, dict):
        known = TIMES | MADE | {"run", "folder", "overwrite"}
        return {k: _without_times(v) for k, v in value.items() if k not in known}
    return value


def weights(step: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by name."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as reader, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it reads from the disk where arrays lay
        tree = reader.restore(step / "state")
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
