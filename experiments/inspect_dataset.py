"""Look at a dataset before training on it: counts, lengths, every irregular row, and pictures.

  python experiments/inspect_dataset.py --source=synthetic
  python experiments/inspect_dataset.py --target=casme2 --data-root=CASME2

Prints tables, and writes into --out: index.html (tables and pictures in one file), the pictures,
irregular.csv. The pictures show what is cropped and what the network will see.
"""

import pathlib

import cli
import flags

from ma2mi_jax import files
from ma2mi_jax.datasets import registry
from ma2mi_jax.evaluation import blocks, inspection
from ma2mi_jax.training import finetuning_run


def parsed(argv):
    p = cli.parser(__doc__)
    flags.add_dataset(p)
    help = "folder of the page and the pictures (runs/inspect-<name>)"
    p.add_argument("--out", type=pathlib.Path, help=help)
    help = "side of the crops that are shown, and of drawn frames (256)"
    p.add_argument("--size", type=cli.positive, default=256, help=help)
    f = p.parse_args(argv)
    f.spec = flags.dataset_of(vars(f))
    f.out = f.out or pathlib.Path("runs") / f"inspect-{f.spec.name}"
    return f


def main(argv):
    f = parsed(argv)
    dataset = finetuning_run.read_clips([f.spec], f.size, cli.LISTENER)
    cli.make_folder(f.out)
    root = registry.located(f.spec)
    dataset = inspection.without_folder(dataset, root)
    title = f"{f.spec.shown}, {root.resolve().name}" if root.exists() else f.spec.shown
    content = inspection.content(f.spec, dataset, f.out, f.size)
    page = f.out / "index.html"
    with files.whole(page) as temporary:
        text = blocks.html(title, [blocks.Heading(title, 1), *content])
        temporary.write_text(text, encoding="utf-8")

    cli.say(f"{f.spec.shown}, {root}" if root.exists() else f.spec.shown)
    cli.show(content)
    cli.say(f"page: {page}")


if __name__ == "__main__":
    cli.run(main)
