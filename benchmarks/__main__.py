"""Measure how fast this machine pre-trains and fine-tunes, beside plain PyTorch.

  python -m benchmarks                                        # what a CPU does in 15 minutes
  python -m benchmarks --parts=step --presets=tiny --inputs=pixels --batch-sizes=8,16
  python -m benchmarks --presets=paper --precisions=bfloat16 --batch-sizes=32     # on a GPU

Parts: step (a pre-training step, in JAX and PyTorch), ablation (the same without one of its parts),
start (until the first step is done, with an empty and with a filled compile cache), folds (leaving
one subject out), latents (the autoencoder by precision), reading (pairs a second), waiting (of a
step, for its pairs), devices (what several devices tell each other).

Each way has a process of its own; they take turns, and medians after a warm-up count. Run it on a
quiet machine. Prints tables, and writes all of it as JSON, after each size too.
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
QUICK = {  # a CPU's choice
    "presets": ["tiny"],
    "inputs": ["pixels"],
    "precisions": ["float32"],
    "batch_sizes": [16],
    "modes": ["eager", "channels-last"],
    "counts": [1, 2],
    "folds": 4,
}
FULL = {  # an accelerator's, of the part `step`
    "presets": ["tiny", "small", "paper"],
    "inputs": list(steps.INPUTS),
    "precisions": list(PRECISIONS),
    "batch_sizes": [8, 32, 128, 256],
    "modes": list(MODES),
    "counts": [1, 2, 4, 8],
}
# An accelerator's of other parts, which would take hours in every size: those of the paper.
ONE_SIZE = {"precisions": ("bfloat16",), "batch_sizes": (32,)}
OWN = {
    "ablation": ONE_SIZE,
    "start": ONE_SIZE,
    "folds": ONE_SIZE | {"batch_sizes": (16,)},
    "reading": ONE_SIZE,
    "waiting": ONE_SIZE | {"inputs": ("latents", "pixels")},
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
    chosen("--frameworks", FRAMEWORKS, "those that can be used here")
    chosen("--presets", tuple(PRESETS), "tiny; on an accelerator tiny,small,paper")
    chosen("--inputs", tuple(steps.INPUTS), "pixels; on an accelerator all")
    chosen("--precisions", PRECISIONS, "float32; on an accelerator both for step")
    chosen("--torch-modes", MODES, "eager,channels-last; on an accelerator all", "modes")
    chosen("--forms", folds.FORMS, "all")
    chosen("--devices", tuple(range(1, 9)), "1,2; on an accelerator those it has", "counts", int)
    even = tuple(range(2, 4097, 2))
    p.add_argument(
        "--batch-sizes",
        type=cli.listed(even, int),
        metavar="N,N",
        help="even numbers by commas (16; on an accelerator 8,32,128,256 for step)",
    )
    p.add_argument(
        "--folds",
        type=cli.positive,
        help="folds at once (4; on an accelerator as many as finetune.py takes, at most 8)",
    )
    p.add_argument("--repeats", type=cli.positive, default=7, help="turns that count (7)")
    p.add_argument("--out", type=pathlib.Path, metavar="FILE.json", help="(runs/bench/<time>.json)")
    f = p.parse_args(argv)

    on_cpu = jax.default_backend() == "cpu"
    real = 8 if on_cpu else jax.device_count()  # those of a CPU are not
    if f.counts and max(f.counts) > real:
        raise UserError("[devices={count}]: only {real} are here", count=max(f.counts), real=real)
    unasked = {name for name, value in vars(f).items() if value is None}
    for name, value in (QUICK if on_cpu else FULL).items():
        if name in unasked:
            setattr(f, name, value)
    own = {part: {k: v for k, v in of.items() if k in unasked} for part, of in OWN.items()}
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
        own={} if on_cpu else own,
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    out = f.out or pathlib.Path("runs/bench") / f"{now}.json"
    cli.make_folder(out.parent)
    return made, out


def frameworks(wanted: list[str] | None, on_cpu: bool) -> tuple[str, ...]:
    """The frameworks to measure: without a wish those that can be used on this machine.

    Raises:
      UserError: PyTorch is wanted and absent, or it cannot use the GPU that JAX uses.
    """
    if wanted and "torch" not in wanted:
        return tuple(wanted)
    problem = _unusable_torch(on_cpu)
    if not problem:
        return tuple(wanted or FRAMEWORKS)
    if wanted:
        raise UserError(
            "[frameworks=torch]: {problem}; install one that can be used, or give [frameworks=jax]",
            problem=problem,
        )
    cli.log(f"{problem}, so there is nothing to compare with")
    return ("jax",)


def _unusable_torch(on_cpu: bool) -> str:
    """Why PyTorch cannot be measured beside JAX; empty if it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is absent (requirements-test.txt)"
    if on_cpu:
        return ""
    import torch

    return "" if torch.cuda.is_available() else "JAX uses an accelerator, this PyTorch has no CUDA"


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
        rows = content["tables"][name] = []
        for together in parts.PARTS[name].measure(f.of(name), parts.fastest(rates)):
            rows += together
            files.write_json(out, content)  # for the next ones may take long
        parts.show(parts.PARTS[name].table, rows)
    cli.say(f"written: {out}")


if __name__ == "__main__":
    cli.run(main)
