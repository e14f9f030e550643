"""What fine-tuning starts from: nothing, the weights of a ResNet18, a pre-training run, or a model
folder."""

import dataclasses
import pathlib
from typing import Any

from ma2mi_jax import files
from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.models.architecture import PRESETS, Architecture
from ma2mi_jax.models.weights import torchvision
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finished, model_folder, pretraining
from ma2mi_jax.training.run_config import FinetuneRun


@dataclasses.dataclass(frozen=True)
class Initial:
    """The start of every member.

    Attributes:
      architecture: of the networks.
      identity: what of the start tells runs apart: `none`, a hash of weights, or what is resolved
        of a pre-training; of a model folder the hash of its weights.
      pretrained: the configuration of the pre-training, or None.
      weights: what `finetuning.init` takes: None, or (params, batch_stats).
    """

    architecture: Architecture
    identity: Any
    pretrained: pretraining.Config | None = None
    weights: tuple[Any, Any] | None = None


def read(run: FinetuneRun, listener: Listener = SILENT) -> Initial:
    """Reads what `run.init` names.

    Raises:
      UserError: there is no such thing, or the run asks for what it is not.
    """
    path, is_file = pathlib.Path(run.init), torchvision.located(run.init)[0].is_file()
    chosen = from_scratch(run)
    if run.keep_reconstruction and (run.init == "none" or is_file):
        raise UserError(
            "[keep_reconstruction]: needs the DiT of a pre-training run; give its folder as [init]"
        )
    if run.init == "none" or is_file:
        _check_tuned(run, chosen)
    if run.init == "none":
        return Initial(chosen, "none")
    if is_file:
        params, batch_stats = torchvision.read_encoders(run.init, chosen)
        if run.tune != "both":
            listener.log(
                f"only the {run.tune} encoder is tuned, and weights come from a file: "
                "the frozen encoder's statistics are not those of such frames"
            )
        weights = {"miacnet": params}, batch_stats
        return Initial(chosen, torchvision.fingerprint(run.init), weights=weights)
    if not path.is_dir():
        raise UserError(
            "[init={init}]: no such folder or file; expected a pre-training run (runs/...), "
            "a model folder, a .safetensors file, or none",
            init=run.init,
        )

    with parameters_called(run="init", model="init"):
        config, identity, weights = learned(path, listener)
    has = {
        "fusion": config.architecture.fusion,
        "pooling": config.architecture.pooling,
        "normalisation": config.architecture.normalisation,
        "preset": preset_of(config.architecture),
    }
    for name, there in has.items():
        asked = getattr(run, name)
        if asked and asked != there:
            with parameters_called(field=name):
                raise UserError(
                    "[field={asked}]: the networks of [init] were made with {name} {there}; "
                    "leave [field] out",
                    asked=asked,
                    name=name,
                    there=there,
                )
    is_pretraining = isinstance(config, pretraining.Config)
    if run.keep_reconstruction and not (is_pretraining and config.objective == "ma2mi"):
        raise UserError(
            "[keep_reconstruction]: what is in [init] was trained by {objective}, "
            "which leaves no DiT; leave [keep_reconstruction] out",
            objective=config.objective if is_pretraining else "fine-tuning",
        )
    _check_tuned(run, config.architecture)
    pretrained = config if is_pretraining else None
    return Initial(config.architecture, identity, pretrained, weights)


def _check_tuned(run: FinetuneRun, architecture: Architecture) -> None:
    """Raises UserError if the encoder to tune is not there: the classifier alone would learn."""
    if run.tune == "position" and architecture.fusion == "action":
        raise UserError(
            "[tune=position]: the networks have no position encoder (their [fusion] is action), so "
            "that no encoder would learn; give [tune=action], or leave [tune] out"
        )


def learned(path: pathlib.Path, listener: Listener) -> tuple[model_folder.Config, Any, Any]:
    """Configuration, identity and weights of a pre-training run or a model folder.

    Raises:
      UserError: it is neither, or not whole.
    """
    if not model_folder.is_model(path):
        found = finished.read_pretrained(path)
        weights = found.state.params, found.state.batch_stats
        return found.config, found.stored.resolved, weights
    model = model_folder.read(path)
    if len(model.weights) > 1:
        listener.log(f"{path}: from the first of its {len(model.weights)} models")
    identity = {
        "model": files.sha256(path / model_folder.WEIGHTS)[:16],
        "autoencoder": model.content.get("autoencoder"),
    }
    return model.config, identity, model.weights[0]


def from_scratch(run: FinetuneRun) -> Architecture:
    """The networks of a run that starts from no pre-training."""
    preset = PRESETS[run.preset or "paper"]
    return dataclasses.replace(
        preset,
        fusion=run.fusion or preset.fusion,
        pooling=run.pooling or preset.pooling,
        normalisation=run.normalisation,
    )


def preset_of(architecture: Architecture) -> str:
    """Name of the preset of these sizes."""
    sizes = ("image_size", "width")
    for name, preset in PRESETS.items():
        if all(getattr(preset, size) == getattr(architecture, size) for size in sizes):
            return name
    return "of no name"
