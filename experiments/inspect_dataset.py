"""Look at a dataset before training on it: counts, clip lengths, every irregular row, and pictures of what the network will see.

  python experiments/inspect_dataset.py --source=synthetic
  python experiments/inspect_dataset.py --target=casme2 --data-root=CASME2

Prints tables, and writes into --out: index.html (tables and pictures), clips.png, repaired.png, irregular.csv.
"""

import collections
import csv
import pathlib

import cli
import flags
import matplotlib.pyplot as plt
import numpy as np

from ma2mi_jax.clips.frames import FrameError
from ma2mi_jax.clips.pairs import read_nearest
from ma2mi_jax.datasets import registry
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import drawing
from ma2mi_jax.training import finetuning_run

SHOWN = 12  # clips in a contact sheet, rows in a table of irregularities
BINS = 10
PAGE = """<!doctype html>
<meta charset="utf-8"><title>NAME</title><style>{stylesheet} body {{ color: {foreground}; background: {background}; }}</style>
<pre style="font: 13px/1.2 monospace"><code>{code}</code></pre>PICTURES
"""


def parsed(argv):
    p = cli.parser(__doc__)
    flags.add_dataset(p)
    p.add_argument(
        "--out", type=pathlib.Path, help="folder of the page and the pictures (runs/inspect-<name>)"
    )
    p.add_argument(
        "--size",
        type=cli.positive,
        default=256,
        help="side of the crops that are shown, and of drawn frames (256)",
    )
    f = p.parse_args(argv)
    f.spec = flags.dataset_of(vars(f))
    f.out = f.out or pathlib.Path("runs") / f"inspect-{f.spec.name}"
    return f


def main(argv):
    f = parsed(argv)
    source = finetuning_run.read_clips([f.spec], f.size, cli.LISTENER)
    cli.make_folder(f.out)
    cli.out.record = True
    print_counts(f, source)
    print_lengths(source.clips)
    print_irregular(f, source)

    # ---------------------------------------------------------------- pictures
    repaired = {repair.id for repair in source.repairs}
    sheets = {
        "clips.png": (source.clips, "evenly spaced in the list of clips"),
        "repaired.png": (
            [clip for clip in source.clips if clip.id in repaired],
            "clips with a repair, evenly spaced among them",
        ),
    }
    drawn = []
    for name, (clips, rule) in sheets.items():
        if clips:
            shown = [
                clips[i]
                for i in np.linspace(0, len(clips) - 1, min(SHOWN, len(clips))).round().astype(int)
            ]
            contact_sheet(
                f.out / name, shown, f.size, f"{source.name}: {len(shown)} of {len(clips)}, {rule}"
            )
            drawn.append(name)
    cli.out.print(
        f"pictures and page: {', '.join(str(f.out / name) for name in [*drawn, 'index.html'])}",
        markup=False,
        soft_wrap=True,
    )
    page = PAGE.replace("NAME", source.name).replace(
        "PICTURES", "".join(f'<p><img src="{name}">' for name in drawn)
    )
    cli.out.save_html(str(f.out / "index.html"), code_format=page)


# ------------------------------------------------------------------------------------------------------------------- tables


def print_counts(f, source):
    clips = source.clips
    rows = [
        ("clips", len(clips)),
        ("frames", sum(len(clip.frames) for clip in clips)),
        ("set aside", len(source.set_aside)),
    ]
    rows += [
        ("repairs", len(source.repairs)),
        ("classes", len(source.classes) or "none"),
        ("annotations", source.annotations or "none"),
    ]
    rows += [("subjects", len({clip.subject for clip in clips} - {""}) or "unknown")]
    rows += [
        (
            "frames per second",
            ", ".join(f"{n} at {fps:g}" for fps, n in tally(clip.fps for clip in clips)).replace(
                "at 0", "unknown"
            ),
        )
    ]
    rows += [
        (
            "face crop",
            f"{sum(clip.box is not None for clip in clips)} clips; the others are cropped already",
        )
    ]
    root = registry.located(f.spec)
    cli.table(f"{source.name}, {root}" if root.exists() else source.name, ("", ""), rows)
    names = (
        *source.classes,
        *(["no label"] if any(clip.label < 0 for clip in clips) else []),
    )  # label -1 is the last of these
    if source.classes:
        counts = collections.Counter(clip.label for clip in clips)
        of_class = lambda label: {clip.subject for clip in clips if clip.label == label}  # noqa: E731
        labels = [*range(len(source.classes)), *([-1] if len(names) > len(source.classes) else [])]
        rows = [
            (name, counts[k], f"{counts[k] / len(clips):.1%}", len(of_class(k)))
            for k, name in zip(labels, names, strict=True)
        ]
        known = 4 if any(clip.subject for clip in clips) else 3
        cli.table(
            "clips per class",
            ("class", "clips", "", "subjects")[:known],
            [row[:known] for row in rows],
        )
    if f.spec.kind == "target":
        by_class = lambda inside: [  # noqa: E731
            sum(clip.label % len(names) == k for clip in inside) for k in range(len(names))
        ]
        try:
            reader = registry.reader(f.spec.kind, f.spec.name)
            protocol = {"name": reader.protocol, "k": reader.k, "seed": 0, "folds_file": None}
            folds = finetuning_run.make_folds(protocol, clips)
        except UserError as error:  # too few subjects: a part of the dataset, say, which may be looked at all the same
            folds = []
            cli.out.print(f"no folds: {error}", markup=False, soft_wrap=True)
        fold_of = {clips[i].subject: fold.name for fold in folds for i in fold.test}
        rows = []
        for subject in sorted({clip.subject for clip in clips}):
            inside = [clip for clip in clips if clip.subject == subject]
            rows.append((subject, fold_of.get(subject, "none"), len(inside), *by_class(inside)))
        cli.table("clips per subject", ("subject", "fold", "clips", *names), rows)
        if 0 < len(folds) < len(fold_of):
            tested = [(fold, [clips[i] for i in fold.test]) for fold in folds]
            rows = [
                (fold.name, len({clip.subject for clip in inside}), len(inside), *by_class(inside))
                for fold, inside in tested
            ]
            cli.table("clips per fold", ("fold", "subjects", "clips", *names), rows)


def print_lengths(clips):
    measures = {"frames of a clip": [len(clip.frames) for clip in clips]}
    measures["onset to apex"] = [
        clip.apex - clip.onset for clip in clips if min(clip.onset, clip.apex) >= 0
    ]
    measures["onset to offset"] = [
        clip.offset - clip.onset for clip in clips if min(clip.onset, clip.offset) >= 0
    ]
    rows = [
        (name, min(values), f"{np.median(values):g}", max(values))
        for name, values in measures.items()
        if values
    ]
    cli.table("lengths, in frames", ("", "min", "median", "max"), rows)
    values = measures["frames of a clip"]
    counts, edges = np.histogram(
        values, np.unique(np.linspace(min(values), max(values) + 1, BINS + 1).round().astype(int))
    )
    bars = ["█" * -(-40 * count // counts.max()) for count in counts]
    rows = [
        (f"{a}-{b - 1}" if b - a > 1 else a, n, bar.ljust(40, "·"))
        for a, b, n, bar in zip(edges, edges[1:], counts, bars, strict=False)
    ]  # one edge more
    cli.table("frames of a clip", ("frames", "clips", ""), rows)


def print_irregular(f, source):
    """What was repaired or set aside: the first of each kind on screen, all of them in a file."""
    rows = [("set aside", each.id, each.reason, "") for each in source.set_aside]
    rows += [("repaired", each.id, each.kind, each.what) for each in source.repairs]
    with (f.out / "irregular.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fate", "clip", "why", "what was done"), *rows])
    for note in source.notes:
        cli.out.print(f"note: {note}", markup=False, soft_wrap=True)
    kinds = tally((fate, why) for fate, _, why, _ in rows)
    if not rows:
        cli.out.print("irregular rows: none")
    for (fate, why), count in kinds[:SHOWN]:
        inside = [
            (clip, what)
            for *key, clip, what in ((r[0], r[2], r[1], r[3]) for r in rows)
            if tuple(key) == (fate, why)
        ]
        more = f"and {count - SHOWN} more, in {f.out / 'irregular.csv'}" if count > SHOWN else ""
        cli.table(f"{fate}, {count}: {why}", ("clip", ""), inside[:SHOWN], more)
    if len(kinds) > SHOWN:
        cli.out.print(
            f"and {len(kinds) - SHOWN} more kinds, in {f.out / 'irregular.csv'}",
            markup=False,
            soft_wrap=True,
        )


def tally(values):
    """(value, count), the most frequent first."""
    return collections.Counter(values).most_common()


# ------------------------------------------------------------------------------------------------------------------- pictures


def contact_sheet(path, clips, size, title):
    """A row a clip: onset, apex and their difference, amplified, where these are known; else first, middle and last frame, and theirs."""
    micro = all(min(clip.onset, clip.apex) >= 0 for clip in clips)
    columns = (
        ("onset", "apex", "apex - onset") if micro else ("first", "middle", "last", "last - first")
    )
    figure, axes = plt.subplots(
        len(clips),
        len(columns),
        figsize=(2 * len(columns), 2.15 * len(clips) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for row, clip in zip(axes, clips, strict=True):
        wanted = (
            [clip.onset, clip.apex] if micro else [0, len(clip.frames) // 2, len(clip.frames) - 1]
        )
        row[0].set_ylabel(
            "\n".join([clip.id[-26:], *([clip.action_units[:26]] if clip.action_units else [])]),
            fontsize=6,
        )
        for axis in row:
            axis.set(xticks=[], yticks=[])
        try:
            read = [read_nearest(clip, position, size) for position in wanted]
        except FrameError as error:
            row[0].set_xlabel(str(error)[-60:], fontsize=5)
            continue
        change = (read[-1][1].astype(np.float32) - read[0][1]) / 127.5
        gain = drawing.visible_gain(change)
        for axis, (position, picture) in zip(
            row, read, strict=False
        ):  # the last axis is the difference's
            axis.imshow(picture)
            axis.set_xlabel(f"frame {position} of {len(clip.frames)}", fontsize=6)
        row[-1].imshow(drawing.amplified(change, gain))
        row[-1].set_xlabel(f"x {gain:.1f}", fontsize=6)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=8)
    figure.suptitle(title, fontsize=8)
    drawing.save(figure, path)


if __name__ == "__main__":
    cli.run(main)
