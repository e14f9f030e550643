"""A model to give away: a folder with weights, with what they are, and with what they want to see.

  model.safetensors   the networks of every member, float32, under Flax's names
  config.json         what they are, what pre-processing they need, what they were trained on
  README.md           the model card, for people alone (`evaluation/model_card.py`)

It holds no optimiser, no path, and no name of a clip or a subject. It is read from a folder or from
the Hugging Face hub.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ma2mi_jax import __version__, files, schema
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.weights import tensors
from ma2mi_jax.training import finetuning, pretraining

FORMAT, VERSION = "ma2mi_jax model", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
MEND = "give a folder that `ma2mi export` made, or the id of one on the Hugging Face hub"
PATIENCE = 5  # seconds that the hub has to answer

Config = finetuning.Config | pretraining.Config
Weights = tuple[Any, Any]
"""Parameters and BatchNorm statistics: {miacnet, classifier} of a fine-tuning, {miacnet, dit} of a
pre-training ({miacnet, classifier} of MAER); statistics are MIACNet's."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model folder that was read.

    Attributes:
      path: of the folder on this machine.
      content: of its config.json.
      config: of the networks and their training.
      weights: of each member.
    """

    path: pathlib.Path
    content: Mapping[str, Any]
    config: Config
    weights: tuple[Weights, ...]

    @property
    def classes(self) -> list[str]:
        """Names; empty if it is of a pre-training, which knows none."""
        return self.content["classes"]

    @property
    def members(self) -> Sequence[int]:
        """Numbers of the models that it holds."""
        return range(len(self.weights))


# ----- writing ------------------------------------------------------------------------------------


def write(
    path: pathlib.Path, content: Mapping[str, Any], members: Sequence[Weights], card: str
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
      content: of config.json, without what is written here: format, library, number of members.
      members: the weights of each.
      card: the text of README.md.

    Raises:
      UserError: something is there already, or the folder cannot be written.
    """
    check_free(path)
    path = path.resolve()  # `.` has no name, which the part beside it needs
    head = {"format": FORMAT, "version": VERSION, "library": f"ma2mi_jax {__version__}"}
    named = {
        f"member{number}.{name}": np.asarray(leaf, np.float32)
        for number, weights in enumerate(members)
        for name, leaf in _flat(weights).items()
    }
    part = path.with_name(f"{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        tensors.write(part / WEIGHTS, named, {"format": "flax"})
        files.write_json(part / CONFIG, {**head, "members": len(members), **content})
        (part / CARD).write_text(card, encoding="utf-8")
        if path.exists():  # not replaced: a shell that stands in it would stand in no folder
            for name in (WEIGHTS, CARD, CONFIG):  # the last one makes it a model folder
                (part / name).rename(path / name)
            part.rmdir()
        else:
            part.rename(path)
    except OSError as error:
        raise files.unwritable(path, error) from None


def check_free(path: pathlib.Path) -> None:
    """Raises UserError if something is at the place of a new model folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError("{path}: is there already; give another folder, or delete it", path=path)


def _flat(weights: Weights) -> dict[str, Any]:
    """The arrays of one member by name."""
    params, batch_stats = weights
    return flatten_dict({"params": params, "batch_stats": batch_stats}, sep=".")


# ----- reading ------------------------------------------------------------------------------------


def is_model(path: pathlib.Path) -> bool:
    """Whether a folder is one of these, of whatever version."""
    if not (path / CONFIG).is_file():
        return False
    content = files.read_json(path / CONFIG)
    return isinstance(content, dict) and content.get("format") == FORMAT


def read(where: str | pathlib.Path) -> Model:
    """Reads a model folder.

    Args:
      where: the folder, or the id of a Hugging Face repository, `owner/name`.

    Raises:
      UserError: nothing is there, it is no model folder or a newer one, or its weights are not
        those of its config.json.
    """
    path = pathlib.Path(where) if pathlib.Path(where).exists() else _fetched(str(where))
    content, config = _read_config(path)
    return Model(path, content, config, _read_weights(path, content["members"], config))


def _read_config(path: pathlib.Path) -> tuple[dict[str, Any], Config]:
    file = path / CONFIG
    if not file.is_file():
        raise UserError(
            "[model={path}]: expected a folder with {config} and {weights}, found no {config}; "
            "{mend}",
            path=path,
            config=CONFIG,
            weights=WEIGHTS,
            mend=MEND,
        )
    if not is_model(path):
        raise UserError(
            "[model={path}]: {config} there is not of a model folder; {mend} (a run is given as "
            "[run])",
            path=path,
            config=CONFIG,
            mend=MEND,
        )
    content = files.read_json(file)
    try:
        if content["version"] > VERSION:
            raise files.newer(file, content["version"], VERSION)
        kind = {"finetune": finetuning.Config, "pretrain": pretraining.Config}[content["script"]]
        config = schema.from_json(kind, content["config"])
        named = len(content["classes"])
        fits = named == config.classes if content["script"] == "finetune" else named == 0
        if not fits or not isinstance(content["members"], int) or content["members"] < 1:
            raise ValueError(f"{named} classes, {content['members']} members")
        _shapes(config)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            "{file}: not whole, or changed by hand ({error}); {mend}",
            file=file,
            error=next(iter(repr(error).splitlines())),
            mend=MEND,
        ) from None
    return content, config


def _shapes(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of one member by name."""
    if isinstance(config, finetuning.Config):
        config, init = dataclasses.replace(config, reconstruction=None), finetuning.init
    else:
        init = pretraining.init
    state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return _flat((state.params, state.batch_stats))


def _read_weights(path: pathlib.Path, members: int, config: Config) -> tuple[Weights, ...]:
    file = path / WEIGHTS
    if not file.is_file():
        raise UserError("{file}: there is no such file; {mend}", file=file, mend=MEND)
    found, shapes = tensors.read(file), _shapes(config)
    known = range(min(members, len(found)))  # whatever number config.json says
    expected = [f"member{number}.{name}" for number in known for name in shapes]
    difference = tensors.difference(expected, found)
    if difference or members > len(known):
        raise UserError(
            "{file}: its tensors are not those of {members} members as {config} says: "
            "{difference}; both files must come from one export",
            file=file,
            members=members,
            config=CONFIG,
            difference=difference or f"{len(found)} tensors",
        )

    def member(number: int) -> Weights:
        leaves = {}
        for name, shape in shapes.items():
            tensor = found[f"member{number}.{name}"]
            is_number = jnp.issubdtype(tensor.dtype, jnp.floating)
            if tensor.shape != shape.shape or not is_number:
                raise UserError(
                    "{file}: member{number}.{name} is {dtype}{found}, expected floating-point "
                    "numbers {shape} as {config} says; both files must come from one export",
                    file=file,
                    number=number,
                    name=name,
                    dtype=tensor.dtype,
                    found=list(tensor.shape),
                    shape=list(shape.shape),
                    config=CONFIG,
                )
            if what := tensors.impossible(f"member{number}.{name}", tensor):
                raise tensors.refusal(file, what)
            leaves[name] = tensor.astype(np.float32)
        tree = unflatten_dict(leaves, sep=".")
        return jax.device_put((tree["params"], tree["batch_stats"]), jax.devices()[0])

    return tuple(member(number) for number in range(members))


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of the id of a Hugging Face repository."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", text))


def _fetched(where: str) -> pathlib.Path:
    """The folder of a Hugging Face repository in the hub's cache on this machine.

    The network is asked whether there is a newer one; without network the cache alone counts.

    Raises:
      UserError: it is in neither.
    """
    if not is_hub_id(where):
        raise UserError("[model={where}]: no such folder; {mend}", where=where, mend=MEND)

    import httpx
    import huggingface_hub as hub

    try:
        wanted = [CONFIG, WEIGHTS]
        found = hub.snapshot_download(where, allow_patterns=wanted, etag_timeout=PATIENCE)
    except (OSError, ValueError, httpx.HTTPError) as error:  # all of the hub's errors are of these
        raise UserError(
            "[model={where}]: no such folder, and Hugging Face does not give it ({reason}); {mend}",
            where=where,
            reason=next(iter(str(error).splitlines()), type(error).__name__).rstrip("."),
            mend=MEND,
        ) from None
    return pathlib.Path(found)
