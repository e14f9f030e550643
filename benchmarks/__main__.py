"""Measure how fast this machine pre-trains and fine-tunes, beside plain PyTorch.

  python -m benchmarks                                        # what a CPU does in 15 minutes
  python -m benchmarks --parts=step --presets=tiny --inputs=pixels --batch-sizes=8,16
  python -m benchmarks --presets=paper --precisions=bfloat16 --batch-sizes=32     # on a GPU

Parts: step (a pre-training step, in JAX and PyTorch), ablation (the same without one of its parts),
start (until the first step is done, with an empty and with a filled compile cache), folds (leaving
one subject out), latents (the autoencoder by precision), reading (pairs a second), waiting (of a
step, for its pairs), devices (what several devices tell each other).

Each way has a process of its own; they take turns, and medians after a warm-up count. Run it on a
quiet machine. Prints tables, and writes all of it as JSON.
"""

import datetime
import importlib.util
import os
import pathlib
import sys

# Several processes share one GPU here, so none may take most of its memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import cli
import jax

from benchmarks import folds, machine, parts, steps
from benchmarks.parts import Asked
from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.architecture import PRESETS

FRAMEWORKS, MODES = ("jax", "torch"), ("eager", "channels-last", "compile")
PRECISIONS = ("float32", "bfloat16")
QUICK = {  # a CPU's choice; an accelerator takes all there is
    "presets": ["tiny"],
    "inputs": ["pixels"],
    "precisions": ["float32"],
    "batch_sizes": [16],
    "modes": ["eager", "channels-last"],
    "counts": [1, 2],
}
FULL = {
    "presets": ["tiny", "small", "paper"],
    "inputs": list(steps.INPUTS),
    "precisions": list(PRECISIONS),
    "batch_sizes": [8, 32, 128, 256],
    "modes": list(MODES),
    "counts": [1, 2, 4, 8],
}


def asked(argv) -> tuple[Asked, pathlib.Path]:
    """What to measure, and the file for it.

    Raises:
      UserError: a flag makes no sense on this machine.
    """
    p = cli.parser(__doc__)

    def chosen(flag, allowed, help, dest=None, kind=str):
        shown = f"by commas, of {', '.join(map(str, allowed))} ({help})"
        p.add_argument(flag, type=cli.listed(allowed, kind), dest=dest, help=shown)

    chosen("--parts", tuple(parts.PARTS), "all")
    chosen("--frameworks", FRAMEWORKS, "those that are installed")
    chosen("--presets", tuple(PRESETS), "tiny; on an accelerator tiny,small,paper")
    chosen("--inputs", tuple(steps.INPUTS), "pixels; on an accelerator all")
    chosen("--precisions", PRECISIONS, "float32; on an accelerator both")
    chosen("--torch-modes", MODES, "eager,channels-last; on an accelerator all", "modes")
    chosen("--forms", folds.FORMS, "all")
    chosen("--devices", tuple(range(1, 9)), "1,2; on an accelerator those it has", "counts", int)
    even = tuple(range(2, 4097, 2))
    p.add_argument(
        "--batch-sizes",
        type=cli.listed(even, int),
        metavar="N,N",
        help="even numbers by commas (16; on an accelerator 8,32,128,256)",
    )
    p.add_argument("--folds", type=cli.positive, default=4, help="folds at once (4)")
    p.add_argument("--repeats", type=cli.positive, default=7, help="turns that count (7)")
    p.add_argument("--out", type=pathlib.Path, metavar="FILE.json", help="(runs/bench/<time>.json)")
    f = p.parse_args(argv)

    on_cpu = jax.default_backend() == "cpu"
    real = 8 if on_cpu else jax.device_count()  # those of a CPU are not
    if f.counts and max(f.counts) > real:
        raise UserError("[devices={count}]: only {real} are here", count=max(f.counts), real=real)
    for name, value in (QUICK if on_cpu else FULL).items():
        if getattr(f, name) is None:
            setattr(f, name, value)
    made = Asked(
        parts=tuple(f.parts or parts.PARTS),
        frameworks=frameworks(f.frameworks, on_cpu),
        presets=tuple(f.presets),
        inputs=tuple(f.inputs),
        precisions=tuple(f.precisions),
        batch_sizes=tuple(f.batch_sizes),
        modes=tuple(f.modes),
        forms=tuple(f.forms or folds.FORMS),
        counts=tuple(count for count in f.counts if count <= real),
        folds=f.folds,
        repeats=f.repeats,
        matmul_size=1024 if on_cpu else 8192,
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    out = f.out or pathlib.Path("runs/bench") / f"{now}.json"
    cli.make_folder(out.parent)
    return made, out


def frameworks(wanted: list[str] | None, on_cpu: bool) -> tuple[str, ...]:
    """The frameworks to measure: without a wish those that are there.

    Raises:
      UserError: PyTorch is wanted and absent, or it cannot use the GPU that JAX uses.
    """
    there = importlib.util.find_spec("torch") is not None
    if wanted is None and not there:
        cli.log("PyTorch is absent (requirements-test.txt), so there is nothing to compare with")
    chosen = wanted or (FRAMEWORKS if there else ("jax",))
    if "torch" not in chosen:
        return tuple(chosen)
    if not there:
        raise UserError("[frameworks=torch]: PyTorch is absent; pip install torch")
    if not on_cpu:
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "[frameworks=torch]: JAX uses an accelerator and this PyTorch has no CUDA; install "
                "one that has, or give [frameworks=jax]"
            )
    return tuple(chosen)


def main(argv) -> None:
    f, out = asked(argv)
    made = machine.describe()
    cli.say(f"{made['device']}, {made['processor']}, jax {made['jax']}, torch {made['torch']}")
    if made["load"] > 1:
        cli.log(f"load {made['load']:.1f}: something else runs here, so figures will be too large")
    content = {"machine": made, "command": sys.argv[1:], "tables": {}}
    rates = machine.matmul_rates(f.matmul_size, f.precisions, "torch" in f.frameworks, f.repeats)
    content["tables"]["matmul"] = rates
    parts.show(parts.MATMUL, rates)
    for name in f.parts:
        cli.log(f"measuring: {name}")
        rows = parts.PARTS[name].measure(f, parts.fastest(rates))
        content["tables"][name] = rows
        files.write_json(out, content)  # after each part, for the next one may take long
        parts.show(parts.PARTS[name].table, rows)
    cli.say(f"written: {out}")


if __name__ == "__main__":
    cli.run(main)
