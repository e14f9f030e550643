"""Look at a dataset before training on it: counts, lengths, every irregular row, and pictures.

  python experiments/inspect_dataset.py --source=synthetic
  python experiments/inspect_dataset.py --target=casme2 --data-root=CASME2

Prints tables, and writes into --out: index.html (tables and pictures), clips.png, repaired.png,
irregular.csv. The pictures show what the network will see.
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
from ma2mi_jax.training import finetuning_run, folds

SHOWN = 12  # clips in a contact sheet, rows in a table of irregularities
BINS = 10
PAGE = """<!doctype html>
<meta charset="utf-8"><title>NAME</title>
<style>{stylesheet} body {{ color: {foreground}; background: {background}; }}</style>
<pre style="font: 13px/1.2 monospace"><code>{code}</code></pre>PICTURES
"""


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
    cli.out.record = True
    print_counts(f.spec, dataset)
    print_classes(dataset)
    if f.spec.kind == "target":
        print_subjects(f.spec, dataset)
    print_lengths(dataset.clips)
    print_irregular(f.out, dataset)

    # ---------------------------------------------------------------- pictures
    repaired = {repair.id for repair in dataset.repairs}
    mended = [clip for clip in dataset.clips if clip.id in repaired]
    sheets = {
        "clips.png": (dataset.clips, "evenly spaced in the list of clips"),
        "repaired.png": (mended, "clips with a repair, evenly spaced among them"),
    }
    drawn = []
    for name, (clips, rule) in sheets.items():
        if clips:
            places = np.linspace(0, len(clips) - 1, min(SHOWN, len(clips))).round().astype(int)
            title = f"{dataset.name}: {len(places)} of {len(clips)}, {rule}"
            contact_sheet(f.out / name, [clips[i] for i in places], f.size, title)
            drawn.append(name)
    written = ", ".join(str(f.out / name) for name in [*drawn, "index.html"])
    cli.say(f"pictures and page: {written}")
    pictures = "".join(f'<p><img src="{name}">' for name in drawn)
    page = PAGE.replace("NAME", dataset.name).replace("PICTURES", pictures)
    cli.out.save_html(str(f.out / "index.html"), code_format=page)


# --------------------------------------------------------------------------------------- tables


def print_counts(spec, dataset) -> None:
    clips = dataset.clips
    rates = ", ".join(f"{n} at {fps:g}" for fps, n in tally(clip.fps for clip in clips))
    cropped = sum(clip.box is not None for clip in clips)
    rows = [
        ("clips", len(clips)),
        ("published", registry.reader(spec.kind, spec.name).published or "unknown"),
        ("frames", sum(len(clip.frames) for clip in clips)),
        ("set aside", len(dataset.set_aside)),
        ("repairs", len(dataset.repairs)),
        ("classes", len(dataset.classes) or "none"),
        ("annotations", dataset.annotations or "none"),
        ("subjects", len({clip.subject for clip in clips} - {""}) or "unknown"),
        ("frames per second", rates.replace("at 0", "unknown")),
        ("face crop", f"{cropped} clips; the others are cropped already"),
    ]
    root = registry.located(spec)
    title = f"{dataset.name}, {root}" if root.exists() else dataset.name
    cli.table(title, ("", ""), rows)


def labels_of(dataset) -> dict[int, str]:
    """The labels that there are, with their names; −1 is a clip without one."""
    labels = dict(enumerate(dataset.classes))
    if any(clip.label < 0 for clip in dataset.clips):
        labels[-1] = "no label"
    return labels


def print_classes(dataset) -> None:
    """How many clips, and of how many subjects, each class has."""
    if not dataset.classes:
        return
    rows = []
    for label, name in labels_of(dataset).items():
        inside = [clip for clip in dataset.clips if clip.label == label]
        share = f"{len(inside) / len(dataset.clips):.1%}"
        rows.append((name, len(inside), share, len({clip.subject for clip in inside})))
    known = 4 if any(clip.subject for clip in dataset.clips) else 3
    columns = ("class", "clips", "", "subjects")[:known]
    cli.table("clips per class", columns, [row[:known] for row in rows])


def print_subjects(spec, dataset) -> None:
    """How many clips of each class every subject and every fold of the paper's protocol has."""
    clips, labels = dataset.clips, labels_of(dataset)

    def counts(inside):
        return [sum(clip.label == label for clip in inside) for label in labels]

    reader = registry.reader(spec.kind, spec.name)
    protocol = {"name": reader.protocol, "k": reader.k, "seed": 0, "folds_file": None}
    try:
        all_folds = finetuning_run.make_folds(protocol, clips)
    except UserError as error:  # too few subjects, as in a part of a dataset: it can be looked at
        all_folds = ()
        cli.say(f"no folds: {error.spelled(cli.spell)}")
    fold_of = folds.fold_of(clips, all_folds)
    rows = []
    for subject in sorted({clip.subject for clip in clips}):
        inside = [clip for clip in clips if clip.subject == subject]
        rows.append((subject, fold_of.get(subject, "none"), len(inside), *counts(inside)))
    cli.table("clips per subject", ("subject", "fold", "clips", *labels.values()), rows)

    if 0 < len(all_folds) < len(fold_of):
        rows = []
        for fold in all_folds:
            inside = [clips[i] for i in fold.test]
            subjects = len({clip.subject for clip in inside})
            rows.append((fold.name, subjects, len(inside), *counts(inside)))
        cli.table("clips per fold", ("fold", "subjects", "clips", *labels.values()), rows)


def print_lengths(clips) -> None:
    """Shortest, median and longest of what can be counted in frames, and a histogram."""
    lengths = [len(clip.frames) for clip in clips]
    to_apex = [clip.apex - clip.onset for clip in clips if min(clip.onset, clip.apex) >= 0]
    to_offset = [clip.offset - clip.onset for clip in clips if min(clip.onset, clip.offset) >= 0]
    measures = {
        "frames of a clip": lengths,
        "onset to apex": to_apex,
        "onset to offset": to_offset,
    }
    rows = [
        (name, min(values), f"{np.median(values):g}", max(values))
        for name, values in measures.items()
        if values
    ]
    cli.table("lengths, in frames", ("", "min", "median", "max"), rows)

    ends = np.linspace(min(lengths), max(lengths) + 1, BINS + 1).round().astype(int)
    counts, edges = np.histogram(lengths, np.unique(ends))
    rows = []
    for first, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        bar = "█" * -(-40 * count // counts.max())
        rows.append((f"{first}-{end - 1}" if end - first > 1 else first, count, bar.ljust(40, "·")))
    cli.table("frames of a clip", ("frames", "clips", ""), rows)


def print_irregular(out: pathlib.Path, dataset) -> None:
    """What was repaired or set aside: the first of each kind on screen, all of them in a file."""
    rows = [("set aside", each.id, each.reason, "") for each in dataset.set_aside]
    rows += [("repaired", each.id, each.kind, each.what) for each in dataset.repairs]
    path = out / "irregular.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("fate", "clip", "why", "what was done"), *rows])
    for note in dataset.notes:
        cli.say(f"note: {note}")
    kinds = tally((fate, why) for fate, _, why, _ in rows)
    if not rows:
        cli.say("irregular rows: none")
    for kind, count in kinds[:SHOWN]:
        inside = [(clip, what) for fate, clip, why, what in rows if (fate, why) == kind]
        more = f"and {count - SHOWN} more, in {path}" if count > SHOWN else ""
        fate, why = kind
        cli.table(f"{fate}, {count}: {why}", ("clip", ""), inside[:SHOWN], more)
    if len(kinds) > SHOWN:
        cli.say(f"and {len(kinds) - SHOWN} more kinds, in {path}")


def tally(values):
    """(value, count), the most frequent first."""
    return collections.Counter(values).most_common()


# ------------------------------------------------------------------------------------- pictures


def contact_sheet(path, clips, size, title):
    """A row a clip: onset, apex and their difference, amplified, where these are known.

    Else it is the first, the middle and the last frame, and the difference of first and last."""
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
            parse_math=False,
        )
        for axis in row:
            axis.set(xticks=[], yticks=[])
        try:
            read = [read_nearest(clip, position, size) for position in wanted]
        except FrameError as error:
            row[0].set_xlabel(str(error)[-60:], fontsize=5, parse_math=False)
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
    figure.suptitle(title, fontsize=8, parse_math=False)
    drawing.save(figure, path)


if __name__ == "__main__":
    cli.run(main)
