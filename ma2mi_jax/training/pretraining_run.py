"""One pre-training from its run object to its folder: data, state, the loop, the summary."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ma2mi_jax import files
from ma2mi_jax.clips import pairs
from ma2mi_jax.clips.clip import Clip, Dataset, SetAside, fingerprint, mislabelled
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.errors import UserError
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.weights import diffusers, torchvision
from ma2mi_jax.runs import checkpoint, compiling, folder, processes
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.runs.log import MetricsLog
from ma2mi_jax.training import learned, pretraining, run_config, run_files
from ma2mi_jax.training.run_config import PretrainRun

SHOWN = {  # metrics beside the bar, and their names there
    "ma2mi": {"loss": "loss", "loss_rec": "rec", "copy_baseline": "copy"},
    "maer": {"loss": "loss", "accuracy": "accuracy"},
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a pre-training leaves behind, beside the files in its folder.

    Attributes:
      config, state, vae_params: of the networks.
      dataset: what was read; `clips` are those trained on.
      lines: of the log. Where several processes make the run, this and all below is of the first.
      final: mean of each logged value over the last tenth of the lines.
      averaged: number of these lines.
      replaced: clip id -> how often a frame of it could not be read, in this session.
    """

    run: PretrainRun
    config: pretraining.Config
    state: pretraining.PretrainState
    vae_params: Any
    dataset: Dataset
    clips: tuple[Clip, ...]
    lines: list[dict[str, Any]]
    final: dict[str, float]
    averaged: int
    replaced: dict[str, int]


STEP = jax.jit(pretraining.train_step, static_argnums=0, donate_argnums=1)
"""Compiled once for all runs of one configuration in this process."""


def check_devices(run: PretrainRun) -> None:
    """Asks for the devices, which takes them.

    Raises:
      UserError: the batch cannot be spread over them.
    """
    count = jax.device_count()
    if count != jax.process_count() * jax.local_device_count():
        raise UserError(
            "{here} devices for this process, {count} for all {processes}: expected the same "
            "number for each",
            here=jax.local_device_count(),
            count=count,
            processes=jax.process_count(),
        )
    if run.batch_size % count:
        raise UserError(
            "[batch_size={size}]: expected a multiple of the {count} devices it is spread over",
            size=run.batch_size,
            count=count,
        )
    if run.batch_size // count % 2:
        raise UserError(
            "[batch_size={size}]: expected an even share for each of {count} devices",
            size=run.batch_size,
            count=count,
        )


def load_autoencoder(run: PretrainRun, listener: Listener = SILENT):
    """(shape, weights) of the frozen autoencoder; (None, None) in pixel space and for MAER."""
    if run.space == "pixel" or run.objective == "maer":
        return None, None
    if run.vae == "random":
        listener.log(
            "autoencoder: random weights of the real shape: "
            "this checks size and speed, and is no science"
        )
        return autoencoder.SD_VAE, autoencoder.init(jax.random.key(0), autoencoder.SD_VAE)
    return diffusers.load(run.vae)


def carry_out(run: PretrainRun, listener: Listener = SILENT) -> Finished:
    """Pre-trains, or goes on where an earlier call was killed; writes all files but pictures.

    Raises:
      UserError: something is missing or makes no sense; the folder holds another run; or the loss
        stopped being finite, and then the last good checkpoint is kept.
      KeyboardInterrupt: the listener asked to stop; the last step is saved.
    """
    # ------------------------------------------------------------- data, networks, run folder
    check_devices(run)
    vae, vae_params = load_autoencoder(run, listener)
    encoders = torchvision.read_encoders(run.init, run.architecture) if run.init else None
    with listener.reading("reading clips") as progress:
        size = run.architecture.image_size
        dataset = registry.read_dataset(run.dataset, size=size, progress=progress)
    if run.delta_ms:
        dataset = of_known_time(dataset, run.delta_ms)
    for note in dataset.notes:
        listener.log(note)
    clips = clips_of(run, dataset)
    per_epoch = pairs.steps_per_epoch(len(clips), run.batch_size)
    config = config_of(run, dataset, per_epoch, vae)
    resolved = {
        "source": run.dataset.name,
        "clips": len(clips),
        "fingerprint": fingerprint(dataset.clips),
        "wrong_labels": run.share_of_wrong_labels,
        "autoencoder": None if vae_params is None else autoencoder.fingerprint(vae_params),
        "init": torchvision.fingerprint(run.init) if run.init else None,
    }
    cached = bool(
        vae_params is not None
        and run.cached_latents
        and run.latent == "mean"
        and prepared.cached_latents(clips, resolved["autoencoder"], size)
    )
    resolved["cached_latents"] = cached  # float16: a run without them differs in the last digits
    if run.delta_ms:
        resolved["delta_ms"] = run.delta_ms
        resolved["delta_frames"] = deltas_of(clips, run.delta_ms)
    if made_of := prepared.content_of(dataset.clips):
        resolved["prepared"] = made_of
    if dataset.detector:
        resolved["detector"] = dataset.detector
    resolved["config"] = dataclasses.asdict(config)
    content = run_files.to_json(run, resolved)
    resuming = folder.open_run(run.folder, content, run_files.RESULTS["pretrain"], run.overwrite)

    # ---------------------------------------------------------------------- state and batches
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    stream = {"image_size": size, "batch_size": config.batch_size}
    stream |= {"seed": run.seed, "workers": run.workers}
    stream |= {"share": (jax.process_index(), jax.process_count())}
    if run.objective == "maer":
        batches = pairs.middle_pairs(clips, **stream)
    else:
        batches = pairs.pairs(
            clips, delta=run.delta, delta_ms=run.delta_ms, latents=cached, **stream
        )
    here = NamedSharding(mesh.local_mesh, PartitionSpec("data"))
    iterator = iter(
        pairs.to_device(batches, here).map(functools.partial(processes.joined, mesh=mesh))
    )
    begin = jax.jit(pretraining.init, static_argnums=0, out_shardings=whole, **compiling.ONCE)
    state = begin(config, jax.random.key(run.seed), encoders)
    vae_params = jax.make_array_from_process_local_data(whole, vae_params)
    step_fn = processes.begun_together(STEP, config)
    looks = 0 < run.look_every <= config.steps
    people = None
    if looks:
        with listener.reading("drawing held-out faces") as progress:
            people = learned.held_out(run.dataset, config, vae_params, progress=progress)

    sizes = sizes_of(state, vae_params)
    told = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
    listener.log(f"parameters: {told}")
    listener.log(
        f"{len(clips)} clips, {len(dataset.set_aside)} set aside; "
        f"{config.steps} steps of {config.batch_size} pairs, {config.dtype}"
    )
    if cached:
        listener.log(
            "latents: from the prepared data; the autoencoder draws the last pictures "
            "and is not run otherwise"
        )

    # ------------------------------------------------------------------------------ the loop
    replaced: dict[str, int] = {}
    compiles = compiling.told("the training step", config, listener)
    began = time.monotonic()
    with (
        contextlib.closing(iterator),  # which may have processes
        checkpoint.manager(run.folder / checkpoint.FOLDER) as checkpoints,
    ):
        newest = functools.partial(checkpoint.newest, checkpoints, listener.log)
        start = processes.from_first("checkpoint", newest) if resuming else 0
        if start:
            state = checkpoint.restore(run.folder / checkpoint.FOLDER, start, state)
            iterator.set_state({"taken": start})
            listener.log(f"resuming {run.folder} at step {start}")
        with (
            MetricsLog(run.folder, start, listener.log, run.log_every) as log,
            listener.progress("pre-training", config.steps, start) as advance,
            listener.stoppable() as wished,
            processes.in_step(wished) as asked,
        ):

            def looked(state, frames):
                """What was learned, and the seconds that the look took."""
                jax.block_until_ready(state)  # the steps before it may still be at work
                called = time.monotonic()
                found = learned.look(config, state, frames, people, vae_params)
                return found, time.monotonic() - called

            # `last`: from when on the steps in `pending` took time; looks and compiling put it off
            pending, warned, last = [], "", time.monotonic()
            for step in range(start, config.steps):
                batch, seen = next(iterator), None
                needed = {k: batch[k] for k in ("frames", "label", "latents") if k in batch}
                if looks and step % run.look_every == 0:
                    seen, spent = looked(state, batch["frames"])
                    last += spent
                called = time.monotonic()
                with compiles if step == start else contextlib.nullcontext():
                    state, metrics = step_fn(state, needed, vae_params)
                if step == start:  # the call waits for the compiler, and not for the device
                    last += time.monotonic() - called
                pending.append((step, batch["drawn"], batch["replaced"], metrics))
                final = step + 1 == config.steps
                if looks and final:
                    seen, spent = looked(state, batch["frames"])
                    last += spent
                if step % run.log_every == 0 or final or seen:
                    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
                    now = time.monotonic()
                    values["pairs_per_second"] = len(pending) * config.batch_size / (now - last)
                    last = now
                    log.write(step, {"epoch": step / per_epoch, **values}, seen)
                    count_replaced(replaced, clips, pending, listener)
                    stop_if_not_finite(state, run.folder, clips, pending)
                    pending = []
                    if seen and not warned:
                        since = [line for line in log.lines if line["step"] > step - run.look_every]
                        if warned := learned.collapsed(seen, since):
                            listener.log(warned)
                    note = ", ".join(
                        f"{name} {values[key]:.4f}" for key, name in SHOWN[run.objective].items()
                    )
                    advance(0, note)
                    if not listener.shows_bars and (step % (10 * run.log_every) == 0 or final):
                        speed = f"{values['pairs_per_second']:.1f} pairs/s"
                        listener.log(f"step {step + 1}/{config.steps}  {note}  {speed}")
                stopping = asked()
                if (step + 1) % run.checkpoint_every == 0 or final or stopping:
                    stop_if_not_finite(state, run.folder, clips, pending)
                    if processes.is_first():
                        checkpoint.save(checkpoints, step + 1, state)
                if stopping:
                    raise KeyboardInterrupt
                advance()
        seconds = time.monotonic() - began

    # ----------------------------------------------------------------------------- the summary
    lines = log.lines
    # None where all steps were made before and their log is lost, as `MetricsLog` says: the weights
    # are whole, and worth more than a table of how they came about.
    newest = lines[-1] if lines else {}
    tail = lines[-max(1, len(lines) // 10) :]
    last_look = newest.get("learned")
    if last_look and (said := learned.caution(config, last_look)):
        listener.log(said)
    names = [k for k in newest if k not in ("step", "after", "epoch", "learning_rate", "learned")]
    final = {k: float(np.mean([line[k] for line in tail])) for k in names}
    state, vae_params = processes.own((state, vae_params))
    done = Finished(
        run, config, state, vae_params, dataset, clips, lines, final, len(tail), replaced
    )
    if not processes.is_first():
        return done
    files.write_json(
        run.folder / run_files.RESULTS["pretrain"],
        {
            "source": run.dataset.name,
            "clips_used": len(clips),
            "clips_set_aside": [dataclasses.asdict(s) for s in dataset.set_aside],
            "notes": dataset.notes,
            "repairs": [dataclasses.asdict(r) for r in dataset.repairs],
            "frames_replaced": replaced,
            "frames_replaced_since_step": start,
            "steps": config.steps,
            "epochs": config.steps / per_epoch,
            "final": final,
            "final_is": f"mean over the last {len(tail)} logged steps",
            "learned": last_look,
            "seconds": round(seconds, 1),
            "steps_this_session": config.steps - start,
            "parameters": sizes,
            "versions": folder.made_with(),
        },
    )
    return done


def clips_of(run: PretrainRun, dataset: Dataset) -> tuple[Clip, ...]:
    """The clips that are trained on: all, or for MAER those with a label, some of them wrong.

    Raises:
      UserError: MAER finds no label.
    """
    if run.objective != "maer":
        return dataset.clips
    labelled = [clip for clip in dataset.clips if clip.label >= 0]
    if not labelled:
        raise UserError(
            "[objective=maer]: none of the {count} clips has a label; "
            "unpack the dataset's lists of labels too",
            count=len(dataset.clips),
        )
    return tuple(mislabelled(labelled, len(dataset.classes), run.share_of_wrong_labels, run.seed))


def of_known_time(dataset: Dataset, delta_ms: tuple[int, int]) -> Dataset:
    """The dataset without the clips of which no pair is so many milliseconds apart. They are set
    aside, and a note counts them.

    Raises:
      UserError: no clip is left.
    """
    reasons = {clip.id: _without_pair(clip, delta_ms) for clip in dataset.clips}
    usable = tuple(clip for clip in dataset.clips if not reasons[clip.id])
    counts = collections.Counter(filter(None, reasons.values()))
    told = "; ".join(f"{count} clips set aside: {why}" for why, count in counts.most_common())
    if not usable:
        raise UserError(
            "[delta_ms={low}:{high}]: no clip is left ({told}); give [delta], in frames",
            low=delta_ms[0],
            high=delta_ms[1],
            told=told,
        )
    aside = [SetAside(id, why) for id, why in reasons.items() if why]
    return dataclasses.replace(
        dataset,
        clips=usable,
        set_aside=tuple(sorted((*dataset.set_aside, *aside), key=lambda each: each.id)),
        notes=(*dataset.notes, *([f"δ by time: {told}"] if told else [])),
    )


def _without_pair(clip: Clip, delta_ms: tuple[int, int]) -> str:
    """Why no pair of a clip is so many milliseconds apart; empty if there is one."""
    if not clip.fps:
        return "frames per second unknown"
    delta = pairs.frames_within(delta_ms, clip.fps)
    if delta is None:
        return "so few frames per second that no whole number of frames lasts as long as δ"
    return "shorter than the shortest δ" if len(clip.frames) <= delta[0] else ""


def deltas_of(clips: Sequence[Clip], delta_ms: tuple[int, int]) -> dict[str, int]:
    """How many clips draw δ from which range of frames: `{"3:8": 120, "4:9": 7}`."""
    ranges = (pairs.frames_within(delta_ms, clip.fps) for clip in clips)
    counts = collections.Counter("{}:{}".format(*each) for each in ranges)
    return dict(sorted(counts.items()))


def _widest(clips: Sequence[Clip], delta_ms: tuple[int, int]) -> tuple[int, int]:
    """δ in frames, from the shortest to the longest of all clips."""
    lows, highs = zip(*(pairs.frames_within(delta_ms, clip.fps) for clip in clips), strict=True)
    return min(lows), max(highs)


def settings_of(run: PretrainRun) -> dict[str, Any]:
    """Fields of `pretraining.Config` that the run alone decides, whatever data and device are."""
    settings = {
        "architecture": run.architecture,
        "objective": run.objective,
        "position_loss": run.position_loss,
        "position_scale": run.position_scale,
        "reconstruction_loss": run.reconstruction_loss,
        "rotation": run.tau_rotation,
        "translation": run.tau_translation,
        "flip": run.tau_flip,
        "batch_size": run.batch_size,
        "learning_rate": run.learning_rate,
        "decay": run.decay,
        "weight_decay": run.weight_decay,
        "seed": run.seed,
        "latent": run.latent,
    }
    return settings if run.delta_ms else settings | {"delta": run.delta}


def config_of(run: PretrainRun, dataset: Dataset, per_epoch: int, vae) -> pretraining.Config:
    """What the step is made of: the run, and what data and device decide."""
    decided = {
        "classes": len(dataset.classes) if run.objective == "maer" else 0,
        "steps": run.steps or (run.epochs or 80) * per_epoch,
        "dtype": run_config.dtype(run.precision),
        "vae": vae,
    }
    if run.delta_ms:
        decided["delta"] = _widest(dataset.clips, run.delta_ms)
    return pretraining.Config(**settings_of(run), **decided)


def sizes_of(state: pretraining.PretrainState, vae_params: Any) -> dict[str, int]:
    """Number of parameters of each network."""
    trees = {**state.params["miacnet"], "dit": state.params.get("dit", {})}
    trees["autoencoder (frozen)"] = vae_params
    return {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in trees.items()}


def count_replaced(replaced: dict[str, int], clips, pending, listener: Listener) -> None:
    """Adds the clips in which a frame could not be read, and says so the first time."""
    for drawn, flagged in processes.whole([each[1:3] for each in pending]):
        for index in drawn[flagged]:
            name = clips[index].id
            if name not in replaced:
                listener.log(
                    f"{name}: a frame could not be read; the nearest readable one stands in "
                    "(counted in summary.json)"
                )
            replaced[name] = replaced.get(name, 0) + 1


def stop_if_not_finite(
    state: pretraining.PretrainState, path: pathlib.Path, clips: Sequence[Clip], pending
) -> None:
    """Ends the run, before it saves anything more, if a loss or gradient was not finite.

    Args:
      path: of the run.
      pending: step, clips drawn, frames replaced and metrics of each step since the last call.

    Raises:
      UserError: it was not. It says which, and which clips were in the batch.
    """
    bad = int(state.first_bad_step)
    if bad < 0:
        return
    drawn, metrics = next((each[1], each[3]) for each in pending if each[0] == bad)
    values = jax.device_get(metrics)
    ids = dict.fromkeys(clips[index].id for index in processes.whole(drawn))
    raise UserError(
        "step {bad}: not finite: {names}; in its batch: {ids}; the last good checkpoint is kept "
        "in {checkpoints}. Try a lower [learning_rate] or [precision=float32], in another [run]; "
        "if that does not help, look at these clips",
        bad=bad,
        names=", ".join(name for name, value in values.items() if not np.isfinite(value)),
        ids=disk.some(ids, disk.OF_A_BATCH),
        checkpoints=path / checkpoint.FOLDER,
    )
