"""Prepare a dataset once: faces cropped, frames of one size, in files made for random access.

  python experiments/prepare.py --source=dfew --out=prepared/dfew
  python experiments/prepare.py --source=afew --data-root=AFEW --out=prepared/afew --latents \
--vae=sd-vae-ft-mse
  python experiments/prepare.py --out=prepared/dfew --verify
  python experiments/pretrain.py --source=dfew --data-root=prepared/dfew

The result is itself a --data-root. With --latents the autoencoder's latents of every frame are kept
too, and pre-training in latent space never runs it again. The same command goes on where it was
stopped, and makes a lost or damaged shard anew. Only shards that are not done cost time.
"""

import functools
import pathlib
import time

import cli
import flags
import jax

from ma2mi_jax import files
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.errors import UserError
from ma2mi_jax.images import to_float
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.runs import lock


def parsed(argv):
    p = cli.parser(__doc__)
    flags.add_dataset(p, required="--verify" not in argv)
    output = p.add_argument_group("output")
    help = "folder of the prepared data; may be a prepared --data-root itself"
    output.add_argument("--out", type=pathlib.Path, required=True, help=help)
    help = "side of the frames, a multiple of 8 (256)"
    output.add_argument("--size", type=cli.positive, default=256, help=help)
    help = "threads that read, crop and write (one for each core)"
    output.add_argument("--workers", type=cli.positive, help=help)
    help = "delete the prepared data that are in --out"
    output.add_argument("--overwrite", action="store_true", help=help)
    help = "only check the prepared data in --out against their checksums"
    output.add_argument("--verify", action="store_true", help=help)
    latents = p.add_argument_group("latents")
    help = "keep the autoencoder's latents of every frame too"
    latents.add_argument("--latents", action="store_true", help=help)
    help = f"a diffusers folder or a hub id ({diffusers.SD_VAE_HUB})"
    latents.add_argument("--vae", default=diffusers.SD_VAE_HUB, help=help)
    help = "frames that are encoded at once (32)"
    latents.add_argument("--batch-size", type=cli.positive, default=32, help=help)
    f = p.parse_args(argv)
    if f.size % 8:
        raise UserError(
            "[size={size}]: expected a multiple of 8, by which the autoencoder shrinks", size=f.size
        )
    f.spec = None if f.verify else flags.dataset_of(vars(f))
    return f


def main(argv):
    f = parsed(argv)
    if f.verify:
        return verify(f.out)
    with lock.alone(f.out, "out"):
        prepare(f)


def prepare(f) -> None:
    cli.keep_compiled_programs()
    # Before the long work: a wrong flag shows at once.
    vae = diffusers.load(f.vae) if f.latents else None

    # ---------------------------------------------------------------- frames
    began = time.monotonic()
    root = registry.located(f.spec)
    if root.resolve() == f.out.resolve() and prepared.is_prepared(f.out):
        if not f.latents:
            raise UserError(
                "[out={out}]: is [root] itself; give another folder, or [latents] to add latents",
                out=f.out,
            )
        dataset = prepared.read(f.out, f.spec.name, f.spec.kind)
    else:
        with cli.LISTENER.reading("reading clips") as progress:
            dataset = registry.read_dataset(f.spec, size=f.size, progress=progress)
        with cli.progress("preparing frames", frames_of(dataset)) as advance:
            prepared.write(
                dataset,
                f.spec.kind,
                f.out,
                size=f.size,
                workers=f.workers,
                overwrite=f.overwrite,
                progress=lambda done, total: advance(0, completed=done),
            )
        dataset = prepared.read(f.out, dataset.name, f.spec.kind)

    # ---------------------------------------------------------------- latents
    if vae is not None:
        config, params = vae
        encode = jax.jit(
            lambda params, frames: autoencoder.encode(config, params, to_float(frames))
        )
        with cli.progress("encoding frames", frames_of(dataset)) as advance:
            prepared.add_latents(
                f.out,
                functools.partial(encode, params),
                autoencoder=autoencoder.fingerprint(params),
                vae=f.vae,
                batch_size=f.batch_size,
                progress=lambda done, total: advance(0, completed=done),
            )

    # ---------------------------------------------------------------- results
    megabytes = sum(path.stat().st_size for path in f.out.iterdir()) / 1e6
    # --size says nothing where latents were added to what was there.
    side = files.read_json(f.out / prepared.MANIFEST)["size"]
    rows = [
        ("clips", len(dataset.clips)),
        ("frames", f"{frames_of(dataset)} of {side} x {side}"),
        ("set aside", len(dataset.set_aside)),
        ("repairs", len(dataset.repairs)),
        ("face detector", dataset.detector or "not used"),
        ("latents", "yes" if vae else "no"),
        ("MB", f"{megabytes:.1f}"),
        ("seconds", f"{time.monotonic() - began:.1f}"),
    ]
    cli.table(f"{f.spec.shown}, prepared", ("", ""), rows)
    for note in dataset.notes:
        cli.say(note)
    aside = [(each.id, each.reason) for each in dataset.set_aside]
    cli.print_set_aside(aside, prepared.MANIFEST)
    without = f" --without={f.spec.without}" if f.spec.without else ""
    cli.say(f"use it by --{f.spec.kind}={dataset.name} --data-root={f.out}{without}")


def frames_of(dataset) -> int:
    """Number of frames of all clips."""
    return sum(len(clip.frames) for clip in dataset.clips)


def verify(out: pathlib.Path) -> int:
    """Exit code 0 if every shard is what was written, else 1 with a line for each that is not."""
    with cli.LISTENER.reading("verifying") as progress:
        problems = prepared.verify(out, progress)
    for problem in problems:
        cli.say(problem)
    verdict = "every shard is as it was written"
    if problems:
        verdict = f"{len(problems)} damaged shards"
    cli.say(f"{out}: {verdict}")
    return 1 if problems else 0


if __name__ == "__main__":
    cli.run(main)
