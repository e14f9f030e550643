"""Plan, run and lay out the runs behind the paper's tables and figures, and put its numbers and ours side by side.

  python experiments/reproduce.py --table=1,4 --target=casme2,samm --data=/datasets --seeds=3
  python experiments/reproduce.py --all --target=synthetic --dry-run
  python experiments/reproduce.py --table=4 --target=synthetic --clips=400 --steps=600 --subjects=8 --finetune-epochs=20

Prints the plan: which runs, what is there already, how long the rest takes. A run stands in one folder below --out and serves every table
that needs it; a finished one is used again, an unfinished one goes on, so the same command goes on with a plan that was killed. A run that
fails stops no other. At the end writes a page into --out, as .html (one file, pictures inside) and .md, with the commands of all runs.
Exit code 1 if a run failed or is not there, or a picture could not be drawn.

--target=synthetic needs no data, no weights and no GPU; its sizes are --preset=tiny --space=pixel unless they are given.
"""

import dataclasses
import functools
import pathlib
import shlex
import signal
import subprocess
import sys

import cli
import data
import finetune as finetune_script
import jax
import jax.numpy as jnp
import numpy as np
import pretrain as pretrain_script
import targets

from ma2mi_jax import files
from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import drawing, gradcam, heatmaps
from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.reproduction import page as pages
from ma2mi_jax.reproduction import paper, plans
from ma2mi_jax.runs import lock
from ma2mi_jax.training import pretraining

EXPERIMENTS = pathlib.Path(__file__).resolve().parent
# What the plan itself decides, so that it cannot be passed on to the scripts.
DECIDED = {
    "source",
    "target",
    "preset",
    "space",
    "vae",
    "clips",
    "data-root",
    "objective",
    "position-loss",
    "delta",
    "steps",
    "epochs",
}
DECIDED |= {
    "seed",
    "seeds",
    "init",
    "tune",
    "keep-reconstruction",
    "run",
    "overwrite",
    "compare",
    "export",
    "help",
}


def flags(argv):
    p = cli.parser(__doc__)
    what = p.add_argument_group("what")
    what.add_argument(
        "--table",
        type=cli.listed(plans.TABLES, int),
        default=[],
        metavar="1,2,...",
        help="tables of the paper, 1 to 6",
    )
    what.add_argument(
        "--figure",
        type=cli.listed(plans.FIGURES, int),
        default=[],
        metavar="4,5,6",
        help="figures of the paper, 4 to 6",
    )
    what.add_argument("--all", action="store_true", help="all of them")
    what.add_argument(
        "--target",
        type=cli.listed((*paper.DATASETS, "synthetic")),
        required=True,
        help="casme2,samm,mmew; or synthetic",
    )
    what.add_argument("--dry-run", action="store_true", help="print the plan alone")
    size = p.add_argument_group(
        "size of every run; where nothing is said the scripts' defaults hold, which are the paper's"
    )
    size.add_argument(
        "--source",
        type=data.source_name,
        choices=data.SOURCES,
        help="macro-expression videos (dfew; synthetic for --target=synthetic); fervk39 is ferv39k",
    )
    size.add_argument(
        "--data", help="folder in which the datasets lie by name (default: $MA2MI_DATA, else data)"
    )
    size.add_argument(
        "--preset",
        choices=PRESETS,
        help="size of the networks (paper; tiny for --target=synthetic)",
    )
    size.add_argument(
        "--space",
        choices=("latent", "pixel"),
        help="of MA2MI (latent; pixel for --target=synthetic)",
    )
    size.add_argument(
        "--vae",
        default=plans.Size.vae,
        help=f"latent space: the frozen autoencoder ({plans.Size.vae})",
    )
    length = size.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive, help="of pre-training")
    length.add_argument("--steps", type=cli.positive, help="of pre-training")
    size.add_argument("--finetune-epochs", type=cli.positive, help="of fine-tuning")
    size.add_argument(
        "--seeds", type=cli.positive, default=1, help="fine-tuning seeds of each run (1)"
    )
    size.add_argument(
        "--pretrain-seeds",
        type=cli.positive,
        default=1,
        help="pre-trainings of each row, one a seed (1)",
    )
    size.add_argument("--clips", type=cli.positive, help="synthetic source: number of clips (600)")
    size.add_argument("--subjects", type=cli.positive, help="synthetic target: number of subjects")
    size.add_argument(
        "--clips-per-subject", type=cli.positive, help="synthetic target: clips of each"
    )
    size.add_argument(
        "--pretrain-flags",
        default="",
        help='more flags of pretrain.py, such as "--batch-size=16 --learning-rate=1e-3"',
    )
    size.add_argument("--finetune-flags", default="", help="more flags of finetune.py")
    output = p.add_argument_group("output")
    output.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder of runs and pages (runs/reproduce/<preset>, or .../synthetic-<preset>)",
    )
    f = p.parse_args(argv)
    if f.all:
        f.table, f.figure = list(plans.TABLES), list(plans.FIGURES)
    if not f.table + f.figure:
        raise UserError("nothing to reproduce; give --table=1,..., --figure=4,... or --all")
    drawn = "synthetic" in f.target
    if drawn and len(f.target) > 1:
        raise UserError(
            f"--target={','.join(f.target)}: synthetic stands alone, for no page mixes drawn faces with real datasets"
        )
    f.source = f.source or ("synthetic" if drawn else "dfew")
    if f.clips and f.source != "synthetic":
        raise UserError(
            f"--clips={f.clips}: of a synthetic source alone; leave it out with --source={f.source}"
        )
    if (f.subjects or f.clips_per_subject) and not drawn:
        raise UserError(
            "--subjects, --clips-per-subject: of --target=synthetic alone; leave them out"
        )
    if f.data and drawn and f.source == "synthetic":
        raise UserError(f"--data={f.data}: drawn faces are read from nowhere; leave it out")
    if f.vae == "random":
        raise UserError(
            "--vae=random: a check of size and speed by pretrain.py, of which no table can be made; give an autoencoder"
        )
    f.preset, f.space = (
        f.preset or ("tiny" if drawn else "paper"),
        f.space or ("pixel" if drawn else "latent"),
    )
    f.out = f.out or pathlib.Path("runs/reproduce") / (
        f"synthetic-{f.preset}" if drawn else f.preset
    )
    return f


def size_of(f):
    """What all runs have in common."""
    length = {"steps": f.steps, "epochs": f.epochs}
    tuning = {
        "epochs": f.finetune_epochs,
        "subjects": f.subjects,
        "clips-per-subject": f.clips_per_subject,
    }
    given = lambda named: {name: str(value) for name, value in named.items() if value is not None}  # noqa: E731
    return plans.Size(
        source=f.source,
        preset=f.preset,
        space=f.space,
        seeds=f.seeds,
        pretrain_seeds=f.pretrain_seeds,
        clips=f.clips or plans.Size.clips,
        data=f.data,
        vae=f.vae,
        pretrain=given(length) | passed_on("--pretrain-flags", f.pretrain_flags),
        finetune=given(tuning) | tuning_flags(f),
    )


def tuning_flags(f):
    """Those of --finetune-flags; the fusion is the pre-training's, and every target has an annotation sheet of its own."""
    found = passed_on("--finetune-flags", f.finetune_flags)
    if "fusion" in found:
        raise UserError(
            f"--finetune-flags={f.finetune_flags}: --fusion is that of the pre-training; give it in --pretrain-flags"
        )
    if "annotations" in found and len(f.target) > 1:
        raise UserError(
            f"--finetune-flags={f.finetune_flags}: {', '.join(f.target)} share no sheet; reproduce one of them at a time"
        )
    return found


def passed_on(flag, text):
    """The flags in the value of `flag`, by name."""
    try:
        words = shlex.split(text)
    except ValueError as error:  # a quote that is not closed
        raise UserError(f"{flag}={text}: {error}") from None
    if bad := [word for word in words if not word.startswith("--")]:
        raise UserError(
            f"{flag}={text}: {bad[0]!r} is no flag; expected --name=value, several separated by spaces"
        )
    found = plans.split_flags(words)
    if decided := sorted(DECIDED & found.keys()):
        raise UserError(
            f"{flag}={text}: --{decided[0]} follows from the plan and from the flags of this script; leave it out"
        )
    return found


def check_commands(todo, out, dry_run):
    """Reads the flags of runs as their scripts will, and looks for their datasets: now, not after the runs before them.

    Args:
      dry_run: the datasets need not be there.

    Raises:
      UserError: a script would not take its flags, or a dataset is not there.
    """
    scripts = {"pretrain": pretrain_script, "finetune": finetune_script}
    for run in todo:
        try:
            f = scripts[run.script].flags(command(run, out)[1:])
        except UserError as error:
            raise UserError(f"{run.script}.py: {error}") from None
        if not (dry_run or data.is_drawn(f.name, f.root) or f.root.is_dir()):
            raise UserError(
                f"{f.root}: no such folder; put {f.name} there, or give --data, a folder in which the datasets lie by name"
            )


# ------------------------------------------------------------------------------------------------------------------- what is there


@dataclasses.dataclass(frozen=True)
class State:
    """Of a run's folder: `finished`, `unfinished`, `absent`, or `other`: something is there that is not this run, for the reason `why`."""

    kind: str
    why: str = ""

    @property
    def waits(self) -> bool:
        """Whether the run is still to be made, or to go on."""
        return self.kind in ("absent", "unfinished")


def look(run, out) -> State:
    """What lies in a run's folder."""
    folder = out / run.folder
    if not folder.is_dir() or not any(folder.iterdir()):
        return State("absent")
    try:
        stored = files.read_json(folder / "config.json")
        start = out / run.init.folder / "config.json" if run.init else None
        if start and not start.exists():
            return State(
                "other",
                f"{folder}: its pre-training {run.init.folder} is gone; delete that folder, or give another --out",
            )
        why = plans.mismatch(run, stored, files.read_json(start) if start else None)
    except UserError as error:
        return State("other", str(error))
    if why:
        return State(
            "other",
            f"{folder}: a run of another configuration is there ({why}); delete that folder, or give another --out",
        )
    return State("finished" if (folder / plans.RESULTS[run.script]).exists() else "unfinished")


def command(run, out) -> list[str]:
    """The words of a run's command, but for the interpreter."""
    start = (
        []
        if run.script == "pretrain"
        else [f"--init={out / run.init.folder if run.init else 'none'}"]
    )
    return [f"{run.script}.py", *run.flags, *start, f"--run={out / run.folder}"]


def shown_command(run, out) -> str:
    """The command as a person types it."""
    return "python experiments/" + shlex.join(command(run, out))


def print_plan(todo, states, estimates, out):
    """Every run with what is there of it and how long it will take, then the commands."""
    words = {
        "finished": "there already",
        "unfinished": "goes on",
        "absent": "to do",
        "other": "in the way",
    }
    rows = []
    for run in todo:
        time = (
            ("unknown" if estimates[run] is None else duration(estimates[run]))
            if states[run].waits
            else ""
        )
        rows.append((run.folder, words[states[run].kind], time))
    cli.table(f"plan, in {out}", ("run", "", "time"), rows)
    waiting = [run for run in todo if states[run].waits]
    left = f"; {time_left(waiting, estimates)}" if waiting else ""
    cli.out.print(f"{len(todo)} runs, {len(waiting)} to make{left}", markup=False, soft_wrap=True)
    for run in todo:
        if states[run].kind == "other":
            cli.out.print(states[run].why, markup=False, soft_wrap=True)


def time_left(waiting, estimates) -> str:
    """How long these runs will take, and of how many that is not known."""
    known = [estimates[run] for run in waiting if estimates.get(run) is not None]
    unknown = len(waiting) - len(known)
    parts = (
        [f"{duration(sum(known))} for {len(known)} of them, at the rate of finished ones"]
        if known
        else []
    )
    parts += [f"unknown for {unknown}, no run of whose kind is finished"] if unknown else []
    return "; ".join(parts)


def duration(seconds) -> str:
    """Whole seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


# ------------------------------------------------------------------------------------------------------------------- running


def call(words) -> int:
    """Runs a script in a process of its own, whose output is our progress; its exit code."""
    return subprocess.run(
        [sys.executable, str(EXPERIMENTS / words[0]), *words[1:]], stdout=sys.stderr, check=False
    ).returncode


def execute(todo, out, call=call, estimate=dict):
    """Makes what is not there, in order; returns run -> "" or why it is not finished. A failed run stops only those that start from it.

    Args:
      estimate: called after each run that was made; what runs take, in seconds, where that is known.
    """
    outcome = {}
    for number, run in enumerate(todo, 1):
        busy = f"[{number}/{len(todo)}] another process is at work in {out / run.folder}, of a plan that was killed perhaps; waiting for it"
        lock.wait(out / run.folder, functools.partial(cli.log, busy))
        state = look(run, out)
        if state.kind == "other":
            outcome[run] = state.why
        elif state.kind != "finished" and run.init and outcome[run.init]:
            outcome[run] = f"skipped, since {run.init.folder} is not finished"
        elif state.kind == "finished":
            outcome[run] = ""
        else:
            cli.log(f"[{number}/{len(todo)}] {shown_command(run, out)}")
            code = call(command(run, out))
            outcome[run] = (
                "" if look(run, out).kind == "finished" else f"failed with exit code {code}"
            )
            if waiting := [each for each in todo[number:] if look(each, out).waits]:
                cli.log(f"{len(waiting)} runs to make; {time_left(waiting, estimate())}")
        if outcome[run]:
            cli.log(f"[{number}/{len(todo)}] {outcome[run]}")
    return outcome


def finished_results(all_runs, out):
    """Run -> content of its result file, for those of the same size that are finished."""
    return {
        run: files.read_json(out / run.folder / plans.RESULTS[run.script])
        for run in all_runs
        if look(run, out).kind == "finished"
    }


# ------------------------------------------------------------------------------------------------------------------- pictures


def draw_figure4(path, part, target, found):
    """A picture if at least one range has results; its caption."""
    scores = {
        row.label.removeprefix("δ in "): found[row.key]
        for row in part.rows
        if isinstance(found[row.key], pages.Scores)
    }
    there = {
        label: {name: each.summary["seeds"][name]["values"] for name in ("accuracy", "uf1")}
        for label, each in scores.items()
    }
    if not there:
        return None
    title = f"{shown_name(target)}: ranges of δ in pre-training; bars: standard deviation over seeds, crosses: seeds"
    drawing.delta_ranges(path, there, title)
    return title


def median_pairs(frames, labels):
    """For each class the clip whose change, mean |apex - onset|, is the class's (lower) median: indices, in the order of the classes."""
    change = np.array([np.abs(pair[1].astype(np.int16) - pair[0]).mean() for pair in frames])
    chosen = []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        chosen.append(
            int(inside[np.argsort(change[inside], kind="stable")[(len(inside) - 1) // 2]])
        )
    return chosen


def draw_figure5(path, run, target, size):
    """Onset, apex, the apex that the pre-trained network predicts, and both changes; returns the caption."""
    record, state = targets.read_pretrained(run)
    config = pretraining.config_from_json(record["config"]["pretrain"])
    vae_params = (
        targets.load_autoencoder(size.vae, record["config"]["data"]["autoencoder"])
        if config.vae
        else None
    )
    source = read_target(target, size, config.architecture.image_size)
    frames, _ = pipeline.load_pairs(source.clips, config.architecture.image_size)
    chosen = median_pairs(frames, np.array([clip.label for clip in source.clips]))
    predicted, copied = pretraining.reconstruct(config, state, frames[chosen], vae_params)
    onset, apex = (np.asarray(to_float(jnp.asarray(frames[chosen, k]))) for k in range(2))
    names = [f"{source.clips[i].id[-24:]}\n{source.classes[source.clips[i].label]}" for i in chosen]
    title, moments = f"{shown_name(target)}: onset → apex", ("onset", "apex", "predicted apex")
    drawing.reconstructions(path, onset, apex, predicted, copied, names, title, moments)
    share = np.abs(predicted - apex).mean() / np.abs(copied - apex).mean()
    return (
        f"{shown_name(target)}: of each class the clip whose change from onset to apex is the class's median. The network was pre-trained "
        f"on {source_name(size)} and never saw these faces; it is given onset and C_Δ. Its mean error on the pairs shown is {share:.2f} of "
        f"that of repeating the onset{'' if config.vae is None else ', both decoded'}. "
        "Changes are amplified, both of a row alike, as written below them."
    )


def read_target(target, size, side):
    """The clips that the fine-tunes of `target` see."""
    p = cli.parser("")
    data.add_flags(p, kinds=("target",))
    given, _ = p.parse_known_args(plans.finetuning(size, target, None).flags)
    return data.read(data.settle(given), side)


def draw_figure6(path, run, target, size):
    """Grad-CAM of both encoders for the predicted class, by the fold that had not seen the subject; returns the caption."""
    run = targets.read_run(run)
    predictions = pages.read_scores([run.path]).predictions
    seed, side = predictions.seeds[0], run.config.architecture.image_size
    chosen = heatmaps.choose(predictions)
    clips = {clip.id: clip for clip in data.read_target(run.record["target"]).clips}
    if gone := [clip.id for clip in predictions.clips if clip.id not in clips]:
        raise UserError(
            f"{len(gone)} clips of {run.path} are no longer in the dataset, such as {gone[0]}"
        )
    shown = [clips[predictions.clips[i].id] for i in chosen]
    frames, _ = pipeline.load_pairs(shown, side)
    wanted = {(seed, predictions.folds[i]) for i in chosen}
    models = {
        member: weights for member, *weights in targets.saved_members(run) if member in wanted
    }
    rows = []
    for i, clip, pair in zip(chosen, shown, frames, strict=True):
        params, batch_stats = models[seed, predictions.folds[i]]
        found = gradcam.explain(run.config.architecture, params, batch_stats, pair[None])
        label, predicted = predictions.labels[i], predictions.classes[0, i]
        heat = {name: getattr(found, name) for name in heatmaps.MAPS}
        heat = {
            name: maps if maps is None else np.asarray(gradcam.upsample(maps[0, predicted], side))
            for name, maps in heat.items()
        }
        names = (
            run.classes[label],
            run.classes[predicted],
            predictions.probabilities[0, i, predicted],
        )
        rows.append(
            heatmaps.Row(
                pair[0],
                pair[1],
                caption=heatmaps.caption(clip.id[-24:], *names, clip.action_units),
                **heat,
            )
        )
    heatmaps.figure6(path, rows, f"{shown_name(target)}: Grad-CAM for the predicted class")
    return (
        f"{shown_name(target)}: of each class the most confident right and the most confident wrong prediction of seed {seed}, where there "
        "is one, each by the fold that had not seen the subject. Grad-CAM is for the predicted class, over the onset frame; AU: action "
        "units of the annotation."
    )


def shown_name(target):
    """A target as the page calls it."""
    return paper.DATASETS.get(target, "Drawn faces")


def source_name(size):
    """The source as the page calls it."""
    return (
        f"{size.clips} drawn clips"
        if size.source == "synthetic"
        else plans.MACRO.get(size.source, size.source)
    )


DRAW = {5: draw_figure5, 6: draw_figure6}


# ------------------------------------------------------------------------------------------------------------------- the page


def write_page(f, parts, size, outcome):
    """Writes the page as .md and .html; returns their paths, and what could not be shown of finished runs."""
    names = [f"{part.kind}-{part.number}" for part in parts]
    stem = "-".join([*(["all"] if f.all else names), *f.target])
    where = " and ".join(shown_name(t) for t in f.target)
    title = f"{where}: {'all tables and figures' if f.all else ', '.join(n.replace('-', ' ') for n in names)} of MA2MI"
    blocks, faults = [pages.Heading(title, 1), *map(pages.Text, about(f, size))], []
    for part in parts:
        blocks += [
            pages.Heading(f"{part.kind.capitalize()} {part.number}. {part.title}"),
            *map(pages.Text, part.notes),
        ]
        for target in f.target if part.rows else ():
            if all(target in row.runs or row.missing for row in part.rows):
                blocks += [
                    pages.Heading(shown_name(target), 3),
                    *part_blocks(f, part, target, size, outcome, faults),
                ]
    blocks += run_blocks(plans.runs_of(parts), f.out, outcome)
    written = {
        f.out / f"{stem}.md": pages.markdown(blocks, f.out),
        f.out / f"{stem}.html": pages.html(title, blocks),
    }
    for path, text in written.items():
        with files.whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(written), faults


def about(f, size):
    """What the page is, in sentences."""
    paragraphs = []
    if f.target == ["synthetic"]:
        paragraphs.append(
            "The faces here are drawn by a program. They stand in for no real dataset: the page tells whether the method, as implemented, "
            "behaves as the paper says, not how well it recognises micro-expressions of people."
        )
    further = [
        " ".join(plans.join_flags(flags)) or "none" for flags in (size.pretrain, size.finetune)
    ]
    paragraphs.append(
        f"Pre-trained on {source_name(size)}, where a row names no other source (the paper: DFEW); networks of preset {size.preset}, "
        f"MA2MI in {size.space} space. Further flags of pretrain.py: {further[0]}; of finetune.py: {further[1]}."
    )
    spread = (
        "so the spread over seeds is that of fine-tuning alone"
        if size.pretrain_seeds == 1
        else "the spread is over all of them"
    )
    paragraphs.append(
        f"{size.pretrain_seeds} pre-training(s) a row, {size.seeds} fine-tuning seed(s) each: {spread}."
    )
    return paragraphs


def part_blocks(f, part, target, size, outcome, faults):
    """A table or figure for one target; what could not be read or drawn of finished runs is added to `faults`."""
    path = f.out / f"{part.kind}-{part.number}-{target}.png"
    if part.kind == "figure" and part.number in (5, 6):
        (row,) = part.rows
        (run,) = row.runs[target]
        if outcome[run]:
            return [pages.Text(f"No picture: {outcome[run]}.")]
        try:
            return [pages.Picture(path, DRAW[part.number](path, f.out / run.folder, target, size))]
        except (
            UserError,
            jax.errors.JaxRuntimeError,
        ) as error:  # such as a device without memory left: it costs no other picture
            faults.append(f"{path.name}: {error}")
            return [pages.Text(f"No picture: {error}.")]
    found = {row.key: row_scores(row, target, f.out, outcome, faults) for row in part.rows}
    blocks = pages.score_blocks(part, target, found)
    if part.kind == "figure" and (caption := draw_figure4(path, part, target, found)):
        blocks.insert(0, pages.Picture(path, caption))
    return blocks


def row_scores(row, target, out, outcome, faults):
    """A row's scores, or why there are none; if it lies in finished runs, that is added to `faults`."""
    if row.missing:
        return row.missing
    if bad := [outcome[run] for run in row.runs[target] if outcome[run]]:
        return bad[0]
    try:
        return pages.read_scores([out / run.folder for run in row.runs[target]])
    except UserError as error:
        faults.append(str(error))
        return str(error)


def run_blocks(all_runs, out, outcome):
    """Where every number comes from: time, device and versions of each run, and its command."""
    rows = []
    for run in all_runs:
        if outcome[run]:
            rows.append((run.folder, "not finished", "", ""))
            continue
        found = files.read_json(out / run.folder / plans.RESULTS[run.script])
        versions = ", ".join(
            f"{name} {found['versions'][name]}" for name in ("python", "jax", "flax")
        )
        rows.append((run.folder, duration(found["seconds"]), found["versions"]["device"], versions))
    caption = "Time of the session that finished the run."
    blocks = [
        pages.Heading("Runs"),
        pages.Table(("run", "time", "device", "versions"), rows, caption),
    ]
    return [*blocks, pages.Code([shown_command(run, out) for run in all_runs])]


def main(argv):
    f = flags(argv)
    size = size_of(f)
    parts = plans.plan(f.table, f.figure, f.target, size)
    todo = plans.runs_of(parts)
    everything = plans.runs_of(plans.plan(plans.TABLES, plans.FIGURES, f.target, size))

    def estimate():
        known = finished_results(everything, f.out)
        return {run: plans.seconds(run, known) for run in todo}

    tuned = [
        plans.finetuning(size, target, None) for target in f.target
    ]  # their clips are read for Figure 5, too
    states = {run: look(run, f.out) for run in [*todo, *tuned]}
    check_commands([run for run, state in states.items() if state.waits], f.out, f.dry_run)
    print_plan(todo, states, estimate(), f.out)
    if f.dry_run:
        for run in todo:
            cli.out.print(shown_command(run, f.out), markup=False, soft_wrap=True)
        return 0
    cli.make_folder(f.out)
    outcome = execute(todo, f.out, estimate=estimate)
    cli.keep_compiled_programs()
    written, faults = write_page(f, parts, size, outcome)
    for run, why in outcome.items():
        if why:
            cli.out.print(f"{run.folder}: {why}", markup=False, soft_wrap=True)
    for fault in dict.fromkeys(faults):
        cli.out.print(fault, markup=False, soft_wrap=True)
    cli.out.print(f"page: {' '.join(map(str, written))}", markup=False, soft_wrap=True)
    return 1 if any(outcome.values()) or faults else 0


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # a plan that is ended takes the script it runs with it
    cli.run(main)
