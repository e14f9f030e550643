"""Pre-train MIACNet on macro-expression videos, without labels (paper §3.2).

  python experiments/pretrain.py --source=synthetic --preset=tiny --space=pixel --steps=1000
  python experiments/pretrain.py --source=folder --data-root=my_videos
  python experiments/pretrain.py --source=fervk39            # finds data/ferv39k or $MA2MI_DATA/ferv39k

Writes into the run's folder: config.json, metrics.jsonl, TensorBoard events, checkpoints/, curves.png, reconstructions.png, summary.json.
The same command resumes a run that was interrupted.
"""

import dataclasses
import functools
import math
import pathlib
import time

import cli
import data
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ma2mi_jax import files
from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.clips.clip import fingerprint, mislabelled
from ma2mi_jax.datasets import prepared
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import drawing
from ma2mi_jax.images import to_float
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.models.miacnet import FUSIONS
from ma2mi_jax.models.weights import diffusers, torchvision
from ma2mi_jax.runs import checkpoint, lock
from ma2mi_jax.runs import folder as runs
from ma2mi_jax.runs.log import MetricsLog
from ma2mi_jax.training import pretraining

PICTURES = 8  # rows of reconstructions.png
AT_COPY = 0.99  # share of the copy baseline above which nothing of the motion is predicted
SHOWN = {  # metrics beside the bar, and their names there
    "ma2mi": {"loss": "loss", "loss_rec": "rec", "copy_baseline": "copy"},
    "maer": {"loss": "loss", "accuracy": "accuracy"},
}


def flags(argv):
    p = cli.parser(__doc__)
    dataset = data.add_flags(p, kinds=("source",))
    dataset.add_argument(
        "--delta",
        type=cli.span,
        default=(3, 8),
        metavar="A:B",
        help="frames between I_t and I_t+δ, drawn from A..B (3:8)",
    )
    dataset.add_argument(
        "--workers",
        type=cli.natural,
        default=0,
        help="processes that read frames; 0 reads in threads (0)",
    )
    network = p.add_argument_group("network")
    network.add_argument(
        "--preset",
        choices=PRESETS,
        default="paper",
        help="paper: 256 px, DiT-B/2; small: 128 px; tiny: 96 px (paper)",
    )
    network.add_argument(
        "--space",
        choices=("latent", "pixel"),
        default="latent",
        help="what DiT predicts in (latent)",
    )
    network.add_argument(
        "--vae",
        default="stabilityai/sd-vae-ft-mse",
        help="the frozen autoencoder: a diffusers folder, a hub id, or 'random' for a size check (stabilityai/sd-vae-ft-mse)",
    )
    network.add_argument(
        "--cached-latents",
        type=cli.truth,
        default=True,
        metavar="true|false",
        help="use those of a prepared --data-root, if any (true)",
    )
    network.add_argument(
        "--latent",
        choices=("mean", "sample"),
        default="mean",
        help="of the autoencoder's posterior (mean)",
    )
    network.add_argument(
        "--init",
        help="weights of a ResNet18, .safetensors, from which both encoders start (random)",
    )
    network.add_argument("--fusion", choices=FUSIONS, default="mul", help="how C_Δ is made (mul)")
    network.add_argument(
        "--predict",
        choices=("change", "latent"),
        default="change",
        help="DiT's output: added to Z_t, or alone (change)",
    )
    training = p.add_argument_group("training")
    training.add_argument(
        "--objective",
        choices=("ma2mi", "maer"),
        default="ma2mi",
        help="maer: the labelled baseline of Table 1 (ma2mi)",
    )
    training.add_argument(
        "--wrong-labels",
        type=cli.fraction,
        default=0.0,
        help="maer: share of clips that get another class's label (0)",
    )
    training.add_argument(
        "--position-loss",
        type=cli.truth,
        default=True,
        metavar="true|false",
        help="train E_p by L_pos alone (true)",
    )
    training.add_argument(
        "--position-scale",
        choices=("unit", "raw"),
        default="unit",
        help="L3 on unit or raw features (unit)",
    )
    length = training.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive, help="length of the run (80)")
    length.add_argument("--steps", type=cli.positive, help="length of the run, in updates")
    training.add_argument(
        "--batch-size", type=cli.positive, default=32, help="pairs a step, even (32)"
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        default=4e-4,
        help="at the start; falls to 1%% over the run (4e-4)",
    )
    training.add_argument("--weight-decay", type=float, default=0.01, help="of AdamW (0.01)")
    training.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the computation (auto)",
    )
    training.add_argument(
        "--seed", type=cli.natural, default=0, help="of weights, order, pairs and τ (0)"
    )
    output = p.add_argument_group("output")
    output.add_argument("--run", type=pathlib.Path, help="folder (runs/<source>-<preset>-<seed>)")
    output.add_argument("--overwrite", action="store_true", help="delete the run that is there")
    output.add_argument("--checkpoint-every", type=cli.positive, default=500, help="steps (500)")
    output.add_argument("--log-every", type=cli.positive, default=10, help="steps (10)")
    f = data.settle(p.parse_args(argv))
    f.run = f.run or pathlib.Path("runs") / f"{f.source}-{f.preset}-{f.seed}"
    if f.batch_size % 2:
        raise UserError(
            f"--batch-size={f.batch_size}: expected an even number, since L2 compares neighbours of a batch"
        )
    if not (math.isfinite(f.learning_rate) and f.learning_rate > 0):
        raise UserError(f"--learning-rate={f.learning_rate}: expected a number > 0")
    if f.objective == "maer" and f.source == "folder":
        raise UserError("--objective=maer: needs labelled clips, and --source=folder has no labels")
    if f.wrong_labels and f.objective != "maer":
        raise UserError(
            f"--wrong-labels={f.wrong_labels}: --objective={f.objective} sees no labels; give --objective=maer or leave it out"
        )
    runs.check_run(f.run, "summary.json", f.overwrite)
    return f


def check_devices(f):
    """Apart from `flags`, which reproduce.py calls too: asking for the devices takes them."""
    if f.batch_size % jax.device_count():
        raise UserError(
            f"--batch-size={f.batch_size}: expected a multiple of the {jax.device_count()} devices it is spread over"
        )
    if f.batch_size // jax.device_count() % 2:
        raise UserError(
            f"--batch-size={f.batch_size}: expected an even share for each of {jax.device_count()} devices"
        )


def load_autoencoder(f):
    """(shape, weights) of the frozen autoencoder, (None, None) in pixel space."""
    if f.space == "pixel" or f.objective == "maer":
        return None, None
    if f.vae == "random":
        cli.log(
            "autoencoder: random weights of the real shape (--vae=random): a check of size and speed, not of science"
        )
        return autoencoder.SD_VAE, autoencoder.init(jax.random.key(0), autoencoder.SD_VAE)
    return diffusers.load(f.vae)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def main(argv):
    f = flags(argv)
    check_devices(f)
    with lock.alone(f.run, "run"):
        pretrain_into(f)


def pretrain_into(f):
    cli.keep_compiled_programs()
    dtype = cli.precision(f.precision)

    # ---------------------------------------------------------------- data, network, run folder
    architecture = dataclasses.replace(
        PRESETS[f.preset], space=f.space, fusion=f.fusion, predict=f.predict
    )
    vae, vae_params = load_autoencoder(f)
    encoders = torchvision.read_encoders(f.init, architecture) if f.init else None
    source = data.read(f, PRESETS[f.preset].image_size)
    for note in source.notes:
        cli.log(note)
    clips = source.clips
    if f.objective == "maer":
        labelled = [clip for clip in clips if clip.label >= 0]
        if not labelled:
            raise UserError(
                f"--objective=maer: none of the {len(clips)} clips has a label; unpack the dataset's lists of labels too"
            )
        clips = mislabelled(labelled, len(source.classes), f.wrong_labels, f.seed)
    per_epoch = pipeline.steps_per_epoch(len(clips), f.batch_size)
    config = pretraining.Config(
        architecture=architecture,
        objective=f.objective,
        classes=len(source.classes) if f.objective == "maer" else 0,
        position_loss=f.position_loss,
        position_scale=f.position_scale,
        delta=f.delta,
        steps=f.steps or (f.epochs or 80) * per_epoch,
        batch_size=f.batch_size,
        learning_rate=f.learning_rate,
        weight_decay=f.weight_decay,
        seed=f.seed,
        dtype=dtype,
        vae=vae,
        latent=f.latent,
    )
    identity = {"source": f.source, "clips": len(clips), "fingerprint": fingerprint(source.clips)}
    if f.wrong_labels:
        identity["wrong_labels"] = f.wrong_labels
    if vae_params is not None:
        identity["autoencoder"] = autoencoder.fingerprint(vae_params)
    cached = (
        vae_params is not None
        and f.cached_latents
        and f.latent == "mean"
        and prepared.cached_latents(clips, identity["autoencoder"], PRESETS[f.preset].image_size)
    )
    if f.init:
        identity["init"] = torchvision.fingerprint(f.init)
    if cached:
        identity["cached_latents"] = True  # float16: a run without them differs in the last digits
    resuming = runs.open_run(
        f.run,
        {"data": identity, "pretrain": dataclasses.asdict(config)},
        "summary.json",
        f.overwrite,
    )

    # ---------------------------------------------------------------- state, batches
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    stream = {
        "image_size": config.architecture.image_size,
        "batch_size": config.batch_size,
        "seed": f.seed,
        "workers": f.workers,
    }
    maer = f.objective == "maer"
    batches = (
        pipeline.middle_pairs(clips, **stream)
        if maer
        else pipeline.pairs(clips, delta=f.delta, latents=cached, **stream)
    )
    iterator = iter(pipeline.to_device(batches, split))
    state = jax.jit(functools.partial(pretraining.init, config), out_shardings=whole)(
        jax.random.key(f.seed), encoders
    )
    vae_params = jax.device_put(vae_params, whole)
    step_fn = jax.jit(functools.partial(pretraining.train_step, config), donate_argnums=0)
    sizes = {name: count(tree) for name, tree in state.params["miacnet"].items()} | {
        "dit": count(state.params.get("dit", {}))
    }
    sizes["autoencoder (frozen)"] = count(vae_params)
    cli.log("parameters: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size))
    cli.log(
        f"{len(clips)} clips, {len(source.set_aside)} set aside; {config.steps} steps of {config.batch_size} pairs, {dtype}"
    )
    if cached:
        cli.log(
            "latents: from the prepared data; the autoencoder draws the last pictures and is not run otherwise"
        )

    # ---------------------------------------------------------------- train
    replaced: dict[str, int] = {}
    began = time.monotonic()
    with checkpoint.manager(f.run / "checkpoints") as checkpoints:
        start = 0
        if resuming and checkpoints.latest_step() is not None:
            state = checkpoint.restore(checkpoints, state, iterator)
            start = int(state.step)
            cli.log(f"resuming {f.run} at step {start}")
        with (
            MetricsLog(f.run, start) as log,
            cli.progress("pre-training", config.steps, start) as advance,
        ):
            pending, last = [], time.monotonic()
            for step in range(start, config.steps):
                batch = next(iterator)
                state, metrics = step_fn(
                    state,
                    {k: batch[k] for k in ("frames", "label", "latents") if k in batch},
                    vae_params,
                )
                pending.append((batch["drawn"], batch["replaced"]))
                final = step + 1 == config.steps
                if step % f.log_every == 0 or final:
                    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
                    now = time.monotonic()
                    values["pairs_per_second"] = len(pending) * config.batch_size / (now - last)
                    last = now
                    log.write(step, {"epoch": step / per_epoch, **values})
                    count_replaced(replaced, clips, pending)
                    pending = []
                    stop_if_not_finite(state, f.run)
                    note = ", ".join(
                        f"{name} {values[key]:.4f}" for key, name in SHOWN[config.objective].items()
                    )
                    advance(0, note)
                    if not cli.err.is_terminal and (step % (10 * f.log_every) == 0 or final):
                        cli.log(
                            f"step {step + 1}/{config.steps}  {note}  {values['pairs_per_second']:.1f} pairs/s"
                        )
                if (step + 1) % f.checkpoint_every == 0 or final:
                    stop_if_not_finite(state, f.run)
                    checkpoint.save(checkpoints, step + 1, state, iterator)
                advance()
        seconds = time.monotonic() - began
        if hasattr(iterator, "close"):
            iterator.close()

    # ---------------------------------------------------------------- results
    lines = log.lines
    tail = lines[-max(1, len(lines) // 10) :]
    names = [k for k in lines[-1] if k not in ("step", "epoch", "learning_rate")]
    final = {k: float(np.mean([line[k] for line in tail])) for k in names}
    files.write_json(
        f.run / "summary.json",
        {
            "source": f.source,
            "clips_used": len(clips),
            "clips_set_aside": [dataclasses.asdict(s) for s in source.set_aside],
            "notes": source.notes,
            "repairs": [dataclasses.asdict(r) for r in source.repairs],
            "frames_replaced": replaced,
            "frames_replaced_since_step": start,
            "steps": config.steps,
            "epochs": config.steps / per_epoch,
            "final": final,
            "final_is": f"mean over the last {len(tail)} logged steps",
            "seconds": round(seconds, 1),
            "steps_this_session": config.steps - start,
            "parameters": sizes,
            "versions": runs.versions(),
        },
    )
    drawing.pretraining_curves(f.run / "curves.png", lines)
    if f.objective == "ma2mi":
        whole_clips = [
            clip for clip in clips if clip.id not in replaced
        ]  # an unreadable one must not keep the others from being shown
        draw_reconstructions(
            f.run / "reconstructions.png", config, state, whole_clips or clips, vae_params
        )
    rows = [(k, f"{lines[0][k]:.4f}", f"{final[k]:.4f}") for k in names]
    caption = f"{len(clips)} clips used, {len(source.set_aside)} set aside; {config.steps} steps; last = mean of {len(tail)} logged steps"
    cli.table(f"pre-training on {f.source}", ("", "first", "last"), rows, caption)
    if "copy_baseline" in final:
        share = final["loss_rec"] / final["copy_baseline"]
        cli.out.print(
            f"loss_rec ends at {share:.2f} of the copy baseline; below 1 is better than repeating the frame"
        )
        if share > AT_COPY:
            cli.out.print(
                "so it has not learned to predict motion yet; the first hundreds of steps all end there: train for longer"
            )
    report_set_aside(source.set_aside)
    cli.out.print(f"run: {f.run}", markup=False, soft_wrap=True)


def count_replaced(replaced, clips, pending):
    """Adds the clips in which a frame could not be read to `replaced`, and says so the first time."""
    for drawn, flagged in jax.device_get(pending):
        for index in drawn[flagged]:
            name = clips[index].id
            if name not in replaced:
                cli.log(
                    f"{name}: a frame could not be read; the nearest readable one stands in (counted in summary.json)"
                )
            replaced[name] = replaced.get(name, 0) + 1


def stop_if_not_finite(state, run):
    """Ends the run, before it saves anything more, when a loss or gradient was not finite."""
    bad = int(state.first_bad_step)
    if bad >= 0:
        raise UserError(
            f"step {bad}: the loss or its gradient is not finite; the last good checkpoint is kept in {run / 'checkpoints'}. "
            "Try a lower --learning-rate or --precision=float32, in another --run"
        )


def report_set_aside(set_aside, most=20):
    if set_aside:
        caption = (
            f"and {len(set_aside) - most} more, in summary.json" if len(set_aside) > most else ""
        )
        cli.table(
            f"{len(set_aside)} clips set aside",
            ("clip", "reason"),
            [(s.id, s.reason) for s in set_aside[:most]],
            caption,
        )


def draw_reconstructions(path, config, state, clips, vae_params):
    """Rows by a stated rule: clips evenly spaced in the source, the middle pair with the largest δ."""
    chosen = [
        clips[i]
        for i in np.linspace(0, len(clips) - 1, min(PICTURES, len(clips))).round().astype(int)
    ]
    step = [min(config.delta[1], len(clip.frames) - 1) for clip in chosen]
    first = [(len(clip.frames) - 1 - d) // 2 for clip, d in zip(chosen, step, strict=True)]
    shown = [
        dataclasses.replace(c, onset=t, apex=t + d)
        for c, t, d in zip(chosen, first, step, strict=True)
    ]
    frames, _ = pipeline.load_pairs(shown, config.architecture.image_size)
    predicted, copied = pretraining.reconstruct(config, state, frames, vae_params)
    pairs = np.asarray(to_float(jnp.asarray(frames)))
    names = [f"{clip.id[-24:]}\n{clip.onset} → {clip.apex}" for clip in shown]
    title = "evenly spaced clips, the middle pair with the largest δ; changes amplified as written below them"
    drawing.reconstructions(path, pairs[:, 0], pairs[:, 1], predicted, copied, names, title)


if __name__ == "__main__":
    cli.run(main)
