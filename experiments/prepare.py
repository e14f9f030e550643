"""Prepare a dataset once: faces cropped, frames of one size, in files made for random access. The result is itself a --data-root.

  python experiments/prepare.py --source=dfew --out=prepared/dfew
  python experiments/prepare.py --source=afew --data-root=AFEW --out=prepared/afew --latents --vae=sd-vae-ft-mse
  python experiments/prepare.py --out=prepared/dfew --verify
  python experiments/pretrain.py --source=dfew --data-root=prepared/dfew

With --latents the autoencoder's latents of every frame are kept too, and pre-training in latent space never runs it again.
The same command goes on where it was stopped, and makes a lost or damaged shard anew. Only shards that are not done cost time.
"""

import functools
import pathlib
import time

import cli
import data
import jax

from ma2mi_jax import files
from ma2mi_jax.datasets import prepared
from ma2mi_jax.errors import UserError
from ma2mi_jax.images import to_float
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.runs import lock


def flags(argv):
    p = cli.parser(__doc__)
    data.add_flags(p, required="--verify" not in argv)
    output = p.add_argument_group("output")
    output.add_argument(
        "--out",
        type=pathlib.Path,
        required=True,
        help="folder of the prepared data; may be a prepared --data-root itself",
    )
    output.add_argument(
        "--size", type=cli.positive, default=256, help="side of the frames, a multiple of 8 (256)"
    )
    output.add_argument(
        "--workers", type=cli.positive, help="threads that read, crop and write (one for each core)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="delete the prepared data that are in --out"
    )
    output.add_argument(
        "--verify",
        action="store_true",
        help="only check the prepared data in --out against their checksums",
    )
    latents = p.add_argument_group("latents")
    latents.add_argument(
        "--latents", action="store_true", help="keep the autoencoder's latents of every frame too"
    )
    latents.add_argument(
        "--vae",
        default="stabilityai/sd-vae-ft-mse",
        help="a diffusers folder or a hub id (stabilityai/sd-vae-ft-mse)",
    )
    latents.add_argument(
        "--batch-size", type=cli.positive, default=32, help="frames that are encoded at once (32)"
    )
    f = p.parse_args(argv)
    if f.size % 8:
        raise UserError(
            f"--size={f.size}: expected a multiple of 8, by which the autoencoder shrinks"
        )
    return f if f.verify else data.settle(f)


def main(argv):
    f = flags(argv)
    if f.verify:
        return verify(f.out)
    with lock.alone(f.out, "out"):
        prepare(f)


def prepare(f):
    cli.keep_compiled_programs()
    vae = (
        diffusers.load(f.vae) if f.latents else None
    )  # before the long work: a wrong flag shows at once

    # ---------------------------------------------------------------- frames
    began = time.monotonic()
    if f.root.resolve() == f.out.resolve() and prepared.is_prepared(f.out):
        if not f.latents:
            raise UserError(
                f"--out={f.out}: is the --data-root itself; give another folder, or --latents to add latents to it"
            )
        source = prepared.read(f.out, f.name, f.kind)
    else:
        source = data.read(f, f.size)
        for note in source.notes:
            cli.log(note)
        with cli.progress(
            "preparing frames", sum(len(clip.frames) for clip in source.clips)
        ) as advance:
            prepared.write(
                source,
                f.kind,
                f.out,
                size=f.size,
                workers=f.workers,
                overwrite=f.overwrite,
                progress=lambda done, total: advance(0, completed=done),
            )
        source = prepared.read(f.out, source.name, f.kind)

    # ---------------------------------------------------------------- latents
    if vae is not None:
        config, params = vae
        encode = jax.jit(
            lambda params, frames: autoencoder.encode(config, params, to_float(frames))
        )
        with cli.progress(
            "encoding frames", sum(len(clip.frames) for clip in source.clips)
        ) as advance:
            prepared.add_latents(
                f.out,
                functools.partial(encode, params),
                autoencoder=autoencoder.fingerprint(params),
                vae=f.vae,
                batch_size=f.batch_size,
                progress=lambda done, total: advance(0, completed=done),
            )

    # ---------------------------------------------------------------- results
    frames, megabytes = (
        sum(len(clip.frames) for clip in source.clips),
        sum(p.stat().st_size for p in f.out.iterdir()) / 1e6,
    )
    side = files.read_json(f.out / prepared.MANIFEST)[
        "size"
    ]  # --size says nothing where latents were added to what was there
    rows = [
        ("clips", len(source.clips)),
        ("frames", f"{frames} of {side} x {side}"),
        ("set aside", len(source.set_aside)),
        ("repairs", len(source.repairs)),
    ]
    rows += [
        ("latents", "yes" if vae else "no"),
        ("MB", f"{megabytes:.1f}"),
        ("seconds", f"{time.monotonic() - began:.1f}"),
    ]
    cli.table(f"{source.name}, prepared", ("", ""), rows)
    for note in source.notes:
        cli.out.print(note, markup=False, soft_wrap=True)
    cli.out.print(
        f"use it by --{f.kind}={source.name} --data-root={f.out}", markup=False, soft_wrap=True
    )


def verify(out):
    """Exit code 0 if every shard is what was written, else 1 with a line for each that is not."""
    with cli.progress("verifying", 1) as advance:
        problems = prepared.verify(out, lambda done, total: advance(0, completed=done, total=total))
    for problem in problems:
        cli.out.print(problem, markup=False, soft_wrap=True)
    verdict = f"{len(problems)} damaged shards" if problems else "every shard is as it was written"
    cli.out.print(f"{out}: {verdict}", markup=False, soft_wrap=True)
    return 1 if problems else 0


if __name__ == "__main__":
    cli.run(main)
