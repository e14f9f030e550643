"""What a run is: one frozen object, of which a script's flags are a view and config.json a copy.

A field's default and its help stand here once. `compare=False` marks what changes no number: where
a run lies, how often it is saved. How the objects are kept and read again: `run_files.py`.
"""

import dataclasses
import math
import pathlib
import typing
from typing import Any, Literal

import jax

from ma2mi_jax.clips.pairs import DEFAULT_DELTA
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError, check_range
from ma2mi_jax.losses import Norm, Scale
from ma2mi_jax.models.architecture import PRESETS, Architecture, Space
from ma2mi_jax.models.dit import Predict, Scales
from ma2mi_jax.models.miacnet import Fusion, Normalisation, Pooling
from ma2mi_jax.models.weights.diffusers import SD_VAE_HUB
from ma2mi_jax.training import naming
from ma2mi_jax.training.finetuning import Augmentation, Statistics, TestFrames, Tune
from ma2mi_jax.training.protocol import Select

Preset = Literal["paper", "small", "bench", "tiny", "smoke"]
Precision = Literal["auto", "float32", "bfloat16"]
ProtocolName = Literal["loso", "kfold", "cross", "lodo", "all"]
TESTED = {"root": "test_root", "annotations": "test_annotations", "target": "test_target"}
"""The parameters of a dataset, as they are called for the one that a run across datasets is tested
on."""
NORMALISATION = "imagenet: frames are normalised by its mean and std, for weights trained so (none)"


def _field(default: Any, help: str, group: str, *, neutral: bool = False, **more: Any) -> Any:
    """A field with its help. `neutral` fields change no number and do not tell runs apart.

    A number is at least `least`, at most `most` and more than `above`, where these are given. An
    integer is at least 1 if nothing else is said. `named` is the word for it in the name of a run
    (`naming.py`).
    """
    metadata = {"help": help, "group": group, **more}
    return dataclasses.field(default=default, compare=not neutral, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class PretrainRun:
    """A pre-training; the defaults are the paper's (§4.3) where it says something.

    Raises:
      UserError: a value that makes no sense, alone or beside another one.
    """

    dataset: DatasetSpec
    delta: tuple[int, int] = _field(
        DEFAULT_DELTA,
        "frames between I_t and I_t+δ, drawn from A..B",
        "data",
        metavar="A:B",
        instead_of="delta_ms",
    )
    delta_ms: tuple[int, int] | None = _field(
        None,
        "milliseconds between I_t and I_t+δ, drawn from A..B in place of frames: for videos of "
        "different rates",
        "data",
        metavar="A:B",
        instead_of="delta",
        named="delta-{}ms",
    )
    workers: int = _field(
        0, "processes that read frames; 0 reads in threads", "data", neutral=True, least=0
    )
    preset: Preset = _field(
        "paper",
        "paper: 256 px, DiT-B/2; small: 128 px; bench: 192 px, narrow; tiny: 96 px",
        "network",
    )
    space: Space = _field("latent", "what DiT predicts in", "network", named="{}")
    vae: str = _field(
        SD_VAE_HUB,
        "the frozen autoencoder: a diffusers folder, a hub id, or 'random' for a size check",
        "network",
    )
    cached_latents: bool = _field(True, "use the latents of prepared data, if any", "network")
    latent: Literal["mean", "sample"] = _field(
        "mean",
        "Z is the mean of the posterior that the autoencoder gives, or a sample of it",
        "network",
    )
    init: str | None = _field(
        None,
        "weights of a ResNet18, .safetensors (one of several in it: FILE#encoder_q), from which "
        "both encoders start",
        "network",
    )
    fusion: Fusion = _field("mul", "how F^a and F^p become C_Δ", "network")
    pooling: Pooling = _field("gap", "C_Δ is the mean over places, or all of them", "network")
    normalisation: Normalisation | None = _field(None, NORMALISATION, "network", named="{}")
    predict: Predict = _field("change", "DiT's output: added to Z_t, or used alone", "network")
    dit_scales: Scales = _field("ours", "DiT's scales: ours, or the published ones", "network")
    pixel_shrink: int | None = _field(
        None,
        "pixel space: Z is the frame averaged over squares of N x N (by preset)",
        "network",
        named="shrink-{}",
    )
    objective: Literal["ma2mi", "maer"] = _field(
        "ma2mi", "maer: the labelled baseline of Table 1", "training", named="{}"
    )
    wrong_labels: float | None = _field(
        None,
        "maer: share of clips that get another class's label "
        f"({registry.reader('source', 'synthetic').wrong_labels:g} of drawn clips, 0 of others)",
        "training",
        least=0,
        most=1,
    )
    position_loss: bool = _field(True, "train E_p by L_pos alone", "training", named="no-lpos")
    position_scale: Scale = _field("unit", "L3 on unit or raw features", "training")
    reconstruction_loss: Norm = _field(
        "l1", "the norm of L_rec; the paper's is l1", "training", named="rec-{}"
    )
    tau_rotation: float = _field(20.0, "largest rotation of τ, degrees", "training", least=0)
    tau_translation: float = _field(
        0.1, "largest shift of τ, share of the side", "training", least=0, most=1
    )
    tau_flip: bool = _field(False, "τ mirrors half of the images too", "training")
    epochs: int | None = _field(
        None,
        "length of the run (80, unless steps are given)",
        "training",
        instead_of="steps",
        named="{}-epochs",
    )
    steps: int | None = _field(
        None, "length of the run, in updates", "training", instead_of="epochs", named="{}-steps"
    )
    batch_size: int = _field(32, "pairs a step, an even number", "training", named="batch-{}")
    learning_rate: float = _field(
        4e-4, "at the start of the run", "training", above=0, named="lr-{}"
    )
    decay: float = _field(
        0.01, "share of the learning rate that is left at the end", "training", above=0, most=1
    )
    weight_decay: float = _field(0.01, "of AdamW", "training", least=0)
    precision: Precision = _field("auto", "of the computation", "training", named="{}")
    seed: int = _field(0, "of weights, order, pairs and τ", "training", least=0)
    run: str | None = _field(
        None,
        "folder (runs/<source>-<preset>-<seed>, with what is not the default in between)",
        "output",
        neutral=True,
    )
    overwrite: bool = _field(False, "delete the run that is there", "output", neutral=True)
    checkpoint_every: int = _field(500, "steps between two checkpoints", "output", neutral=True)
    log_every: int = _field(10, "steps between two lines of the log", "output", neutral=True)
    look_every: int = _field(
        500,
        "steps between two looks at what was learned; 0 never looks, nor does a shorter run",
        "output",
        neutral=True,
        least=0,
    )

    script = "pretrain"

    def __post_init__(self):
        object.__setattr__(self, "delta", tuple(self.delta))
        _check_numbers(self)
        if not 1 <= self.delta[0] <= self.delta[1]:
            raise UserError("[delta={delta}]: expected 1 <= first <= last", delta=self.delta)
        if self.delta_ms is not None:
            self._check_time()
        if self.pixel_shrink and self.space != "pixel":
            raise UserError(
                "[pixel_shrink={shrink}]: is only for [space=pixel]; give that too, or remove it",
                shrink=self.pixel_shrink,
            )
        self.architecture  # noqa: B018 - raises if its sizes do not go together
        if self.batch_size % 2:
            raise UserError(
                "[batch_size={size}]: expected an even number, since L2 compares neighbours of a "
                "batch",
                size=self.batch_size,
            )
        if self.epochs and self.steps:
            raise UserError("[epochs] and [steps] both give the length of the run; give one")
        if self.objective == "maer" and not registry.reader("source", self.dataset.name).labelled:
            raise UserError(
                "[objective=maer]: needs labelled clips, and [source={name}] has no labels; "
                "choose another source, or leave [objective] out",
                name=self.dataset.name,
            )
        if self.wrong_labels == self._usual_wrong_labels:
            object.__setattr__(self, "wrong_labels", None)  # said or not, it is the same run
        if self.wrong_labels and self.objective != "maer":
            raise UserError(
                "[wrong_labels={share}]: [objective={objective}] sees no labels; "
                "give [objective=maer] or leave it out",
                share=self.wrong_labels,
                objective=self.objective,
            )

    def _check_time(self) -> None:
        object.__setattr__(self, "delta_ms", tuple(self.delta_ms))
        if not 1 <= self.delta_ms[0] <= self.delta_ms[1]:
            raise UserError(
                "[delta_ms={delta}]: expected 1 <= first <= last, in milliseconds",
                delta=self.delta_ms,
            )
        if self.delta != DEFAULT_DELTA:
            raise UserError("[delta] counts frames and [delta_ms] milliseconds; give one")
        if self.objective == "maer":
            raise UserError(
                "[delta_ms]: [objective=maer] sees the first and the middle frame; leave it out"
            )

    @property
    def _usual_wrong_labels(self) -> float:
        if self.objective != "maer":
            return 0.0
        return registry.reader("source", self.dataset.name).wrong_labels

    @property
    def share_of_wrong_labels(self) -> float:
        """What is asked for, else what the dataset has; in [0, 1]."""
        return self._usual_wrong_labels if self.wrong_labels is None else self.wrong_labels

    @property
    def folder(self) -> pathlib.Path:
        """Where the run lies."""
        if self.run:
            return pathlib.Path(self.run)
        how = naming.differing(self, without=("preset", "seed"))
        words = (*naming.of_dataset(self.dataset), self.preset, *how, str(self.seed))
        return pathlib.Path("runs", naming.joined(self.dataset.name, *words))

    @property
    def architecture(self) -> Architecture:
        """The networks that are asked for."""
        preset = PRESETS[self.preset]
        return dataclasses.replace(
            preset,
            space=self.space,
            fusion=self.fusion,
            predict=self.predict,
            pixel_shrink=self.pixel_shrink or preset.pixel_shrink,
            pooling=self.pooling,
            dit_scales=self.dit_scales,
            normalisation=self.normalisation,
        )

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """What is read."""
        return (self.dataset,)


@dataclasses.dataclass(frozen=True)
class FinetuneRun:
    """A fine-tuning of every fold under every seed; the defaults are the paper's (§4.3).

    `further` holds the datasets beside the first, if there are several: their clips of the classes
    that all share are one dataset, and nobody of one is somebody of another.

    Raises:
      UserError: a value that makes no sense, alone or beside another one.
    """

    dataset: DatasetSpec
    further: tuple[DatasetSpec, ...] = ()
    protocol: ProtocolName | None = _field(
        None,
        "loso: leave one subject out; kfold: k folds of subjects; cross: test on another dataset; "
        "lodo: leave one dataset of several out (by dataset; lodo for several); "
        "all: train on all subjects, for a model to give away, without any score",
        "protocol",
    )
    folds: int | None = _field(
        None, "k of kfold (by dataset; 5 in the paper)", "protocol", named="{}-folds"
    )
    folds_seed: int = _field(
        0, "of kfold and of what inner selection holds out", "protocol", least=0
    )
    folds_file: str | None = _field(
        None,
        "CSV file subject,fold that gives the folds, such as another run's folds.csv",
        "protocol",
        named="by-{}",
    )
    test_target: str | None = _field(
        None,
        "cross: the other dataset; the classes they share count",
        "protocol",
        choices="targets",
    )
    test_root: str | None = _field(
        None, "cross: where the other dataset lies (found as the first is)", "protocol", named=""
    )
    test_annotations: str | None = _field(
        None, "cross: its annotation sheet (found under its root)", "protocol", named="by-{}"
    )
    select: Select = _field(
        "last", "epoch that counts: last, or best on held-out training subjects", "protocol"
    )
    seeds: int = _field(1, "how many: 0, 1, ...", "protocol", named="{}-seeds")
    init: str = _field(
        "none",
        "a pre-training run, a model folder, a ResNet18's FILE.safetensors (of several in it "
        "FILE.safetensors#encoder_q), or none",
        "network",
    )
    preset: Preset | None = _field(
        None, "size of the networks (paper); a pre-training run has its own", "network", named="{}"
    )
    fusion: Fusion | None = _field(None, "(mul); a pre-training run has its own", "network")
    pooling: Pooling | None = _field(None, "(gap); a pre-training run has its own", "network")
    normalisation: Normalisation | None = _field(
        None, f"{NORMALISATION}; a pre-training run has its own", "network", named="{}"
    )
    tune: Tune = _field("both", "which encoder learns; Table 2", "network")
    frozen_statistics: Statistics = _field(
        "running", "BatchNorm of an encoder that does not learn", "network", named="{}-statistics"
    )
    keep_reconstruction: bool = _field(
        False,
        "add L_rec of onset → apex, with the run's DiT; Table 2",
        "network",
        named="reconstruction",
    )
    reconstruction_weight: float = _field(
        1.0, "of the kept L_rec", "network", least=0, named="weight-{}"
    )
    vae: str = _field(SD_VAE_HUB, "autoencoder of a kept reconstruction in latent space", "network")
    epochs: int = _field(80, "passes over a fold's training clips", "training", named="{}-epochs")
    batch_size: int = _field(16, "clips a step", "training", least=1, named="batch-{}")
    learning_rate: float = _field(
        4e-4, "at the start of the run", "training", above=0, named="lr-{}"
    )
    decay: float = _field(
        0.01, "share of the learning rate that is left at the end", "training", above=0, most=1
    )
    weight_decay: float = _field(0.1, "of AdamW", "training", least=0)
    augmentation: Augmentation = _field(
        "affine", "affine: rotation, crop, flip; crop: whole pixels, no rotation", "training"
    )
    rotation: float = _field(5.0, "largest rotation, degrees", "training", least=0)
    translation: float = _field(
        16 / 256, "largest shift of the crop, share of the side", "training", least=0, most=1
    )
    flip: bool = _field(True, "mirror half of the pairs", "training")
    test_frames: TestFrames = _field(
        "sharp", "test clips as they are, or smoothed as augmentation does", "training", named="{}"
    )
    precision: Precision = _field("auto", "of the computation", "training", named="{}")
    fold_chunk: int | None = _field(
        None, "fine-tunes that are trained at once", "training", neutral=True, none="auto"
    )
    run: str | None = _field(
        None,
        "folder (runs/<target>-from-<name of the init>, and what is not the default)",
        "output",
        neutral=True,
    )
    compare: str | None = _field(
        None,
        "a finished run over the same clips: prints the paired difference to it",
        "output",
        neutral=True,
    )
    checkpoint_every: int = _field(
        10, "epochs after which a killed run can go on", "output", neutral=True
    )
    keep_checkpoints: bool = _field(
        True,
        "keep every fold's weights after the end; without them predict, evaluate and export "
        "cannot use the run",
        "output",
        neutral=True,
    )
    overwrite: bool = _field(False, "delete the run that is there", "output", neutral=True)

    script = "finetune"

    def __post_init__(self):
        _check_numbers(self)
        self._check_several()
        if (self.chosen_protocol == "cross") != bool(self.test_target):
            raise UserError("[protocol=cross] and [test_target] go together: give both, or neither")
        if self.test_root and not self.test_target:
            raise UserError(
                "[test_root={root}]: is only for [test_target]; give that too, or remove it",
                root=self.test_root,
            )
        if self.test_annotations and not self.test_target:
            raise UserError(
                "[test_annotations={sheet}]: is only for [test_target]; give that too, or remove "
                "it",
                sheet=self.test_annotations,
            )
        if self.folds and (self.chosen_protocol != "kfold" or self.folds_file):
            raise UserError(
                "[folds={folds}]: is only for [protocol=kfold] without [folds_file]; "
                "give that protocol, or remove it",
                folds=self.folds,
            )
        if self.test_target and self.test_target in [spec.name for spec in self.targets]:
            raise UserError(
                "[test_target={name}]: expected another dataset than [target]",
                name=self.test_target,
            )
        if self.test_target and self.folds_file:
            raise UserError(
                "[folds_file]: [protocol=cross] has a single fold, all of [test_target]; remove it"
            )
        unfit = {
            "select": self.select == "inner",
            "folds_file": self.folds_file,
            "compare": self.compare,
            "keep_checkpoints": not self.keep_checkpoints,
        }
        if self.chosen_protocol == "all" and (names := [name for name in unfit if unfit[name]]):
            raise UserError(
                "[{name}]: [protocol=all] trains on all subjects, and so tests none; remove it",
                name=names[0],
            )
        if self.batch_size < 2:
            raise UserError(
                "[batch_size={size}]: expected at least 2, for BatchNorm takes its statistics over "
                "a batch",
                size=self.batch_size,
            )

    def _check_several(self) -> None:
        """Raises UserError if the targets do not go together, or not with the protocol."""
        names = [spec.name for spec in self.targets]
        if len(set(names)) < len(names):
            raise UserError(
                "[target={names}]: names a dataset twice; name each once", names=",".join(names)
            )
        if self.chosen_protocol == "lodo" and not self.further:
            raise UserError(
                "[protocol=lodo]: leaves one of several datasets out, found only [target={name}]; "
                "give several, separated by commas",
                name=names[0],
            )
        if self.test_target and self.further:
            raise UserError(
                "[test_target={test}]: is for one dataset to train on, found [target={names}]; "
                "give one, or leave it out: [protocol=lodo] tests on each of several",
                test=self.test_target,
                names=",".join(names),
            )

    @property
    def targets(self) -> tuple[DatasetSpec, ...]:
        """`dataset` and the further ones, of whose folds the protocol is."""
        return (self.dataset, *self.further)

    @property
    def target(self) -> str:
        """The names of `targets`, for people."""
        return ", ".join(spec.shown for spec in self.targets)

    @property
    def folder(self) -> pathlib.Path:
        """Where the run lies."""
        if self.run:
            return pathlib.Path(self.run)
        names = "-".join(spec.name for spec in self.targets)
        tested = f"to-{self.test_target}" if self.test_target else ""
        data = dict.fromkeys(word for spec in self.targets for word in naming.of_dataset(spec))
        told = self.further or self.chosen_protocol != self._usual_protocol
        protocol = self.chosen_protocol if told else ""
        how = naming.differing(self, without=("protocol", "test_target", "init"))
        start = naming.joined(naming.word(self.init), longest=naming.START)
        return pathlib.Path(
            "runs", naming.joined(names, tested, *data, protocol, f"from-{start}", *how)
        )

    @property
    def chosen_protocol(self) -> ProtocolName:
        """The protocol asked for, else the paper's for the dataset."""
        return self.protocol or self._usual_protocol

    @property
    def _usual_protocol(self) -> ProtocolName:
        if self.test_target:
            return "cross"
        if self.further:
            return "lodo"
        return registry.reader("target", self.dataset.name).protocol

    @property
    def test_dataset(self) -> DatasetSpec | None:
        """What a run across datasets is tested on; drawn faces of the sizes of the first."""
        if not self.test_target:
            return None
        place = {"root": self.test_root, "annotations": self.test_annotations}
        return _own_fields(dataclasses.replace(self.dataset, name=self.test_target, **place))

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """What is read."""
        if self.test_dataset is None:
            return self.targets
        return _own_fields(self.dataset), self.test_dataset

    @property
    def shown_protocol(self) -> str:
        """The protocol in words."""
        if self.test_target:
            return f"cross, tested on {self.test_dataset.shown}"
        if self.folds_file:
            return f"the folds of {pathlib.Path(self.folds_file).name}"
        return self.chosen_protocol


def _own_fields(spec: DatasetSpec) -> DatasetSpec:
    """Without the sizes of drawn faces and the parts of a composite, where those are given for the
    other dataset of a run."""
    return dataclasses.replace(spec, **registry.of_others(spec))


Run = PretrainRun | FinetuneRun
KINDS: dict[str, type[Run]] = {"pretrain": PretrainRun, "finetune": FinetuneRun}


def check_used(run: Run) -> None:
    """Raises UserError if something was given that nothing in the run uses.

    It is asked of runs that are yet to be made, and not by the objects themselves: a run that was
    made with such a field stays open. What a plan of tables gives to all of its rows is let pass,
    though it changes nothing in some of them.
    """
    given_vae = run.vae != SD_VAE_HUB
    if isinstance(run, PretrainRun):
        if given_vae and run.space == "pixel":
            raise UserError(
                "[vae={vae}]: [space=pixel] needs no autoencoder; leave [vae] out", vae=run.vae
            )
        return
    if given_vae and not run.keep_reconstruction:
        raise UserError(
            "[vae={vae}]: is only for [keep_reconstruction]; give that too, or remove it",
            vae=run.vae,
        )
    if run.augmentation == "crop" and run.rotation not in (0, FinetuneRun.rotation):
        raise UserError(
            "[rotation={angle}]: [augmentation=crop] does not rotate; leave one of them out",
            angle=run.rotation,
        )


def _check_numbers(run: Run) -> None:
    """Raises UserError if a number of the run is out of the range of its field."""
    hints = typing.get_type_hints(type(run))
    for field in dataclasses.fields(run):
        value = getattr(run, field.name)
        if type(value) not in (int, float):
            continue
        least = field.metadata.get("least", 1 if int in _kinds(hints[field.name]) else None)
        check_range(field.name, value, least, field.metadata.get("most"))
        above, finite = field.metadata.get("above"), math.isfinite(value)
        if not finite or (above is not None and not value > above):
            raise UserError(
                "[{field}={value}]: expected a number{over}",
                field=field.name,
                value=value,
                over="" if above is None else f" > {above}",
            )


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that `X` or `X | None` stands for."""
    return typing.get_args(hint) or (hint,)


def dtype(precision: Precision) -> str:
    """`auto` is bfloat16 where the device computes faster in it, and float32 on a CPU."""
    if precision != "auto":
        return precision
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
