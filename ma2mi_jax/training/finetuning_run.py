"""One fine-tuning from its run object to its checkpoints: start, clips, folds, members."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ma2mi_jax.clips.clip import Clip, Dataset, fingerprint
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.datasets.common import disk, merged
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.runs import folder, processes
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.runs.log import MetricsLog
from ma2mi_jax.training import finetuning, folds, initial, protocol, run_config, run_files
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.members import Member, device_mesh, load_data, placed
from ma2mi_jax.training.run_config import FinetuneRun
from ma2mi_jax.training.run_files import Stored

INNER = 0.2  # share of the training clips that inner selection holds out


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a fine-tuning has done, before anything is made of it.

    Attributes:
      dataset: what was read, clips in the order of all indices.
      folds, seeds: of the protocol.
      parts: the members, chunk by chunk, with the `History` of each chunk in `histories`.
      replaced: indices of the clips in which a frame could not be read.
      seconds: of this session's training.
    """

    run: FinetuneRun
    config: finetuning.Config
    dataset: Dataset
    folds: tuple[Fold, ...]
    seeds: list[int]
    parts: list[list[Member]]
    histories: list[protocol.History]
    replaced: list[int]
    seconds: float

    @property
    def members(self) -> list[Member]:
        """All of them, in the order in which they were trained."""
        return [member for part in self.parts for member in part]


def read_clips(specs: Sequence[DatasetSpec], size: int, listener: Listener = SILENT) -> Dataset:
    """The clips of one dataset, or of several as one, as `read_shared` reads them."""
    return read_shared(specs, size, listener).dataset


def read_shared(
    specs: Sequence[DatasetSpec], size: int, listener: Listener = SILENT, *, across: bool = False
) -> merged.Shared:
    """The clips of one dataset; of several, those of the classes that they share.

    Args:
      size: side of drawn frames; others stay as they lie on the disk.
      across: whether the second dataset is the one to test on, whose parameters have names of their
        own in errors.

    Raises:
      UserError: a dataset cannot be read, or they do not fit together.
    """

    def read(spec: DatasetSpec) -> Dataset:
        with listener.reading("reading clips") as progress:
            return registry.read_dataset(spec, size=size, progress=progress)

    parts = [read(specs[0])]
    with parameters_called(**run_config.TESTED if across else {}):
        parts += [read(spec) for spec in specs[1:]]
    return merged.shared(parts) if len(parts) > 1 else merged.Shared(parts[0], {})


def told_classes(shared: merged.Shared) -> dict[str, Any]:
    """For config.json: the classes, each dataset's own classes in them, and its clips of each."""
    dataset = shared.dataset
    clips = {name: dict.fromkeys(dataset.classes, 0) for name in shared.class_of}
    for clip in dataset.clips:
        clips[clip.subject.partition("/")[0]][dataset.classes[clip.label]] += 1
    return {"classes": dataset.classes, "class_of": shared.class_of, "clips_of": clips}


def load_autoencoder(vae: str, expected: str | None) -> Any:
    """Parameters of the autoencoder `vae`, which must be the one of the pre-training run.

    Raises:
      UserError: there is none, or it is another one.
    """
    _, params = diffusers.load(vae)
    if expected and autoencoder.fingerprint(params) != expected:
        raise UserError(
            "[vae={vae}]: other weights than those the pre-training in [init] ran with; "
            "give the same ones",
            vae=vae,
        )
    return params


def carry_out(run: FinetuneRun, listener: Listener = SILENT, check=None) -> Trained:
    """Trains every fold under every seed, or goes on where an earlier call was killed.

    Args:
      check: called with the clips that some fold tests and the classes, before the training; what
        it raises ends the run before anything is written.

    Raises:
      UserError: something is missing or makes no sense; the folder holds another run; a fold's
        loss stopped being finite.
      KeyboardInterrupt: the listener asked to stop; the last epoch is saved.
    """
    # ----------------------------------------------------------------- networks, data, run folder
    start = initial.read(run, listener)
    kept = start.pretrained if run.keep_reconstruction else None
    vae_params = None
    if kept and start.architecture.space == "latent":
        vae_params = load_autoencoder(run.vae, start.identity.get("autoencoder"))
    shared = read_shared(
        run.datasets, start.architecture.image_size, listener, across=bool(run.test_target)
    )
    dataset = shared.dataset
    for note in dataset.notes:
        listener.log(note)
    if len(dataset.classes) < 2:
        raise UserError(
            "[target={name}]: expected clips of two classes or more, found {found} alone; give a "
            "dataset or a sheet with more",
            name=run.target,
            found=dataset.classes[0],
        )
    told = told_classes(shared) if shared.class_of else {}
    for name, of in shared.class_of.items():
        clips = told["clips_of"][name]
        own = {c: [each for each in of if of[each] == c != each] for c in clips}
        words = (f"{c} {n}" + f" ({', '.join(own[c])})" * bool(own[c]) for c, n in clips.items())
        listener.log(f"{name}: {sum(clips.values())} clips of shared classes: {', '.join(words)}")
    protocol_asked = {
        "name": run.chosen_protocol,
        "k": run.folds or registry.reader("target", run.dataset.name).k,
        "seed": run.folds_seed,
        "folds_file": run.folds_file,
        "select": run.select,
    }
    if run.test_target:
        protocol_asked |= {"train": run.dataset.name, "test": run.test_target}
    all_folds = make_folds(protocol_asked, dataset.clips)
    if check:
        check([dataset.clips[i] for i in folds.tested_by(all_folds)], dataset.classes)
    seeds = list(range(run.seeds))
    members = members_of(seeds, all_folds)
    config = finetuning.Config(
        architecture=start.architecture,
        classes=len(dataset.classes),
        reconstruction=kept,
        dtype=run_config.dtype(run.precision),
        **settings_of(run),
    )
    size, why = processes.from_first("chunk", lambda: chunk_of(run, config, len(members)))
    resolved = {
        "init": start.identity,
        "datasets": [located(spec) for spec in run.datasets],
        **({"shared": told} if told else {}),
        "protocol": protocol_asked,
        "seeds": seeds,
        "clips": fingerprint(dataset.clips),
        "folds": folds.fold_of(dataset.clips, all_folds),
        "fold_chunk": size,
        "config": dataclasses.asdict(config),
    }
    if made_of := prepared.content_of(dataset.clips):
        resolved["prepared"] = made_of
    if dataset.detector:
        resolved["detector"] = dataset.detector
    content = run_files.to_json(run, resolved)
    resuming = folder.open_run(run.folder, content, run_files.RESULTS["finetune"], run.overwrite)
    if resolved["folds"] and processes.is_first():
        folds.write_file(run.folder / "folds.csv", resolved["folds"])
    parts = protocol.chunks(members, size)
    subjects = len({clip.subject for clip in dataset.clips})
    listener.log(
        f"{len(dataset.clips)} clips of {subjects} subjects, "
        f"{len(all_folds)} folds x {len(seeds)} seeds, {max(map(len, parts))} at once ({why}); "
        f"from {run.init}, {config.dtype}" + (", resumed" if resuming else "")
    )

    # -------------------------------------------------------------------------------- training
    mesh = device_mesh()
    size_of_frames = start.architecture.image_size
    data, replaced = load(dataset, size_of_frames, mesh, vae_params, listener)
    began = time.monotonic()
    labels = np.array([clip.label for clip in dataset.clips])
    counts = np.zeros(2, int)  # right, tested
    finished: set[int] = set()  # chunks, in the order in which they are told
    with (
        MetricsLog(run.folder, log=listener.log) as log,
        listener.progress("fine-tuning", len(parts) * run.epochs) as advance,
    ):

        def on_epoch(chunk, epoch, history):
            log_epochs(log, chunk, parts[chunk], history, epoch)
            last = epoch + 1 == run.epochs
            if last:
                finished.add(chunk)
            done = sum(len(parts[number]) for number in finished)
            loss, accuracy = history.loss[epoch].mean(), history.accuracy[epoch].mean()
            note = (
                f"{done}/{len(members)} folds done, {len(parts[chunk])} at epoch "
                f"{epoch + 1}/{run.epochs}: loss {loss:.3f}, training accuracy {accuracy:.3f}"
            )
            epochs = len(finished) * run.epochs + (0 if last else epoch + 1)
            advance(completed=epochs, note=note)
            if not listener.shows_bars and (last or epoch % max(1, run.epochs // 4) == 0):
                listener.log(note)
            if last and resolved["folds"]:
                tell_folds(parts[chunk], history, run.select, labels, counts, listener)

        histories = protocol.train(
            config,
            parts,
            start.weights,
            data,
            run.folder,
            on_epoch,
            select=run.select,
            checkpoint_every=run.checkpoint_every,
            mesh=mesh,
            listener=listener,
            clips=[clip.id for clip in dataset.clips],
        )
    seconds = time.monotonic() - began
    return Trained(run, config, dataset, all_folds, seeds, parts, histories, replaced, seconds)


def settings_of(run: FinetuneRun) -> dict[str, Any]:
    """Fields of `finetuning.Config` that the run alone decides, whatever it starts from, and
    whatever data and device are."""
    return {
        "tune": run.tune,
        "frozen_statistics": run.frozen_statistics,
        "reconstruction_weight": run.reconstruction_weight,
        "epochs": run.epochs,
        "batch_size": run.batch_size,
        "learning_rate": run.learning_rate,
        "decay": run.decay,
        "weight_decay": run.weight_decay,
        "augmentation": run.augmentation,
        "rotation": run.rotation,
        "translation": run.translation,
        "flip": run.flip,
        "test_frames": run.test_frames,
    }


def log_epochs(
    log: MetricsLog, chunk: int, members: Sequence[Member], history: protocol.History, epoch: int
) -> None:
    """Writes down a chunk's epochs up to `epoch`, but for those that `log` has.

    Each line has the mean of all members and their standard deviation, and what each did. A run
    that goes on begins its log anew, from the histories that it saved.
    """
    count = len(history.loss)
    begun = [line["step"] - chunk * count for line in log.lines if line["chunk"] == chunk]
    for done in range(max(begun, default=-1) + 1, epoch + 1):
        found = {"loss": history.loss[done], "accuracy": history.accuracy[done]}
        if not np.isnan(history.inner[done]).any():
            found["inner_accuracy"] = history.inner[done]
        values = {"epoch": done + 1}
        for name, each in found.items():
            values |= {name: each.mean(), f"{name}_std": each.std()}
        folds_of = [
            {"seed": member.seed, "fold": member.fold.name}
            | {name: float(each[k]) for name, each in found.items()}
            for k, member in enumerate(members)
        ]
        log.write(chunk * count + done, values, apart={"chunk": chunk, "folds": folds_of})


def located(spec: DatasetSpec) -> dict[str, Any]:
    """A dataset's entry in config.json, which says where it lies from whatever folder one looks."""
    root = None if registry.is_drawn(spec) else str(registry.located(spec).resolve())
    return dataclasses.asdict(dataclasses.replace(spec, root=root))


def make_folds(asked: dict[str, Any], clips: Sequence[Clip]) -> tuple[Fold, ...]:
    """The folds of a run's resolved `protocol`; clips are held out if an epoch is chosen on them.

    Raises:
      UserError: too few subjects, or a folds file that lacks some or cannot be read.
    """
    subjects = [clip.subject for clip in clips]
    try:
        if asked["folds_file"]:
            found = folds.given(subjects, folds.read_file(pathlib.Path(asked["folds_file"])))
        elif asked["name"] == "cross":
            train, test = asked["train"], asked["test"]
            sides = [
                [i for i, subject in enumerate(subjects) if subject.startswith(f"{name}/")]
                for name in (train, test)
            ]
            found = folds.cross(f"{train} to {test}", *sides)
        elif asked["name"] == "all":
            found = folds.everybody(len(clips))
        elif asked["name"] == "lodo":
            found = folds.lodo(subjects)
        elif asked["name"] == "kfold":
            found = folds.kfold(subjects, asked["k"], asked["seed"])
        else:
            found = folds.loso(subjects)
    except ValueError as error:
        if file := asked["folds_file"]:
            raise UserError("[folds_file={file}]: {error}", file=file, error=error) from None
        raise UserError("[protocol={name}]: {error}", name=asked["name"], error=error) from None
    if asked.get("select") != "inner":
        return found
    try:
        return tuple(folds.hold_out(fold, subjects, INNER, asked["seed"]) for fold in found)
    except ValueError as error:
        raise UserError("[select=inner]: {error}", error=error) from None


def recorded_folds(resolved: Mapping[str, Any], clips: Sequence[Clip]) -> tuple[Fold, ...]:
    """The folds of a finished run, as its config.json has them: whatever became of a file of folds.

    No fold has `inner` clips, for no epoch is chosen any more.

    Args:
      resolved: of the run.
      clips: as they are read now.

    Raises:
      UserError: they are of other subjects than the run tested, so that it has no model for some of
        them, or other models in their places.
    """
    asked, recorded = resolved["protocol"], resolved["folds"]
    single = asked["name"] in ("cross", "all")  # one fold: the datasets tell who is tested
    if single:
        found = make_folds({**asked, "select": "last"}, clips)
        tested = folds.fold_of(clips, found).keys()
    else:
        tested = {clip.subject for clip in clips}
    sides = {"new": tested - recorded.keys(), "gone": recorded.keys() - tested}
    differing = (f"{word}: {disk.some(sorted(side))}" for word, side in sides.items() if side)
    if told := "; ".join(differing):
        raise UserError(
            "{datasets}: other subjects are there than the run tested ({told}), so that its models "
            "are not those of these folds; give the data as they were, as [root]",
            datasets=" and ".join(entry["name"] for entry in resolved["datasets"]),
            told=told,
        )
    return found if single else folds.given([clip.subject for clip in clips], recorded)


def members_of(seeds: Sequence[int], all_folds: Sequence[Fold]) -> list[Member]:
    """Every seed's every fold."""
    return [Member(seed, fold) for seed in seeds for fold in all_folds]


def chunk_of(run: FinetuneRun, config: finetuning.Config, members: int) -> tuple[int, str]:
    """How many members are trained at once, and why."""
    if run.fold_chunk:
        return min(run.fold_chunk, members), "as asked"
    if not run.overwrite and (run.folder / folder.CONFIG).exists():
        stored: Stored = run_files.read(run.folder)
        if chunk := stored.resolved.get("fold_chunk"):  # whatever device the run goes on with
            return chunk, "as the run began"
    return protocol.chunk_size(config, members)


def load(dataset: Dataset, size: int, mesh, vae_params, listener: Listener = SILENT):
    """Onset/apex pairs and labels, where there is room for them (`members.load_data`).

    Args:
      size: side of the frames.
      mesh: devices that each get all of them, or None.
      vae_params: of the autoencoder, where L_rec is kept in latent space, else None.

    Returns:
      What `fold_step` reads, and the indices of the clips in which a frame was replaced.
    """
    with listener.progress("loading pairs", len(dataset.clips)) as advance:
        data, replaced, note = load_data(
            dataset.clips, size, mesh=mesh, progress=lambda done: advance(completed=done)
        )
    if note:
        listener.log(note)
    return data | ({} if vae_params is None else {"vae": placed(vae_params, mesh)}), replaced


def tell_folds(members, history, select, labels, counts, listener: Listener) -> None:
    """A line for each finished fold: right of tested, and of all so far, to which `counts` adds."""
    (tests,) = protocol.of_members([members], [history])
    epochs = protocol.reported(history, select)
    for member, outputs, epoch in zip(members, tests, epochs, strict=True):
        test = member.fold.test
        right = int(np.sum(outputs[epoch].argmax(-1) == labels[test]))
        counts += right, len(test)
        listener.log(
            f"  seed {member.seed}  {member.fold.name:<16} {right:>3} of {len(test):>3} right   "
            f"so far {counts[0]} of {counts[1]}, {counts[0] / counts[1]:.3f}"
        )
