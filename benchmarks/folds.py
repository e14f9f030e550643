"""Time the ways to train several folds: one after the other, or as one batch.

Run it on a quiet machine.

  python -m benchmarks.folds --preset=tiny --members=4
  python -m benchmarks.folds --preset=paper --members=8 --precision=bfloat16      # on a GPU

separate: each fold's step on its own, one after the other. unrolled: the vmapped step of
finetune.py, laid out once for each member. grouped: plain jax.vmap, whose convolutions become
grouped ones. Prints the seconds of a step of all members, without compilation.
"""

import functools
import statistics
import time

import cli
import jax
import jax.numpy as jnp
import numpy as np

from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.runs import folder
from ma2mi_jax.training import finetuning, folds
from ma2mi_jax.training.members import Member, start, step_members

WAYS = ("separate", "unrolled", "grouped")


def flags(argv):
    p = cli.parser(__doc__)
    p.add_argument("--preset", choices=PRESETS, default="tiny", help="size of the networks (tiny)")
    p.add_argument("--members", type=cli.positive, default=4, help="folds (4)")
    p.add_argument("--batch-size", type=cli.positive, default=16, help="(16)")
    p.add_argument(
        "--repeats",
        type=cli.positive,
        default=10,
        help="steps that are timed; their median counts (10)",
    )
    p.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="(auto)"
    )
    p.add_argument(
        "--ways", type=cli.listed(WAYS), default=list(WAYS), help=f"by commas ({','.join(WAYS)})"
    )
    return p.parse_args(argv)


def main(argv):
    f = flags(argv)
    architecture = PRESETS[f.preset]
    config = finetuning.Config(
        architecture, classes=5, batch_size=f.batch_size, dtype=cli.precision(f.precision)
    )
    rng = np.random.default_rng(0)
    clips = 4 * f.batch_size
    frames = rng.integers(
        0, 256, (clips, 2, architecture.image_size, architecture.image_size, 3), np.uint8
    )
    data = jax.device_put({"frames": frames, "label": rng.integers(0, 5, clips).astype(np.int32)})
    subjects = [f"s{i % (f.members + 1)}" for i in range(clips)]
    members = [Member(0, fold) for fold in folds.loso(subjects)[: f.members]]
    indices = np.stack([m.batches(0, f.batch_size)[0] for m in members])
    keys = jnp.stack([m.key("augment") for m in members])
    total, active = jnp.full(f.members, 100), jnp.ones(f.members, bool)

    step = functools.partial(finetuning.fold_step, config)
    alone = jax.jit(step, donate_argnums=0)
    grouped = jax.jit(jax.vmap(step, in_axes=(0, None, 0, 0, 0, 0)), donate_argnums=0)

    def separate(states):
        return [
            alone(s, data, i, k, total[0], active[0])[0]
            for s, i, k in zip(states, indices, keys, strict=True)
        ]

    def apart():
        stacked = start(config, members, None)
        return [jax.tree.map(lambda x, k=k: jnp.copy(x[k]), stacked) for k in range(f.members)]

    ways = {
        "separate": (separate, apart),
        "unrolled": (
            lambda s: step_members(config, None, s, data, indices, keys, total, active)[0],
            None,
        ),
        "grouped": (lambda s: grouped(s, data, indices, keys, total, active)[0], None),
    }
    rows, reference = [], None
    for name in f.ways:
        run, begin = ways[name]
        states = jax.block_until_ready(begin() if begin else start(config, members, None))
        began = time.perf_counter()
        states = jax.block_until_ready(run(states))
        first = time.perf_counter() - began
        times = []
        for _ in range(f.repeats):
            began = time.perf_counter()
            states = jax.block_until_ready(run(states))
            times.append(time.perf_counter() - began)
        seconds = statistics.median(times)
        reference = reference or seconds
        rows.append(
            (
                name,
                f"{seconds:.3f}",
                f"{min(times):.3f}",
                f"{seconds / reference:.2f}",
                f"{first:.1f}",
            )
        )
    found = folder.made_with()
    caption = (
        f"{f.members} members, {f.preset}, batch {f.batch_size}, {config.dtype}, "
        f"{found['device']}, jax {found['jax']}"
    )
    cli.table(
        "a step of all members",
        ("", "seconds", "fastest", "of the first", "first call"),
        rows,
        caption,
    )


if __name__ == "__main__":
    cli.run(main)
