"""Plan, run and lay out the runs behind the paper's tables and figures: its numbers beside ours.

  python experiments/reproduce.py --table=1,4 --target=casme2,samm --data-root=/datasets \
--seeds=3
  python experiments/reproduce.py --all --target=synthetic --dry-run
  python experiments/reproduce.py --all --target=casme2 --emit=slurm
  python experiments/reproduce.py --table=1 --target=csv --annotations=my.csv \
--data-root=csv=my_clips,dfew=/datasets/DFEW
  python experiments/reproduce.py --table=4 --target=synthetic --clips=400 --steps=600 \
--subjects=8 --finetune-epochs=20

Prints the plan: which runs, what is there already, how long the rest takes. A run stands in one
folder below --out and serves every table that needs it. A finished run is used again, an unfinished
one goes on, so the same command goes on with a plan that was killed. A run that fails stops no
other. At the end it writes a page into --out, as .html (one file, pictures inside) and .md, with
the commands of all runs. Exit code 1 if a run failed or is not there, or a picture could not be
drawn.

Several processes may work on one plan, each by the same command. --emit=slurm makes nothing: it
writes the plan into --out/slurm, as jobs that submit.sh there submits.

--target=synthetic needs no data, no weights and no GPU. What is not given is there as in
docs/experiments.md, where pre-training was seen to help: --preset=bench --space=pixel, 1,000 clips,
2,000 steps, 40 subjects with 4 weak expressions each, in two folds. Table 4 takes hours on 2 cores.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shlex
import subprocess
import sys

import cli
import flags
import slurm

from ma2mi_jax import signals
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.models.weights.diffusers import SD_VAE_HUB
from ma2mi_jax.reproduction import page, paper, plans, progress
from ma2mi_jax.reproduction.plans import Planned, Size
from ma2mi_jax.runs import lock, processes
from ma2mi_jax.training import run_files
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun, Run

ASKING = 0.1  # seconds: a signal is passed on soon, so that it counts as the terminal's own
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
    "annotations",
    "objective",
}
DECIDED |= {"position-loss", "delta", "steps", "epochs", "seed", "seeds", "init", "tune", "config"}
DECIDED |= {"keep-reconstruction", "run", "overwrite", "compare", "export", "help"}
# Of drawn faces (docs/experiments.md), where nothing else is asked for.
DRAWN = {"preset": "bench", "space": "pixel", "subjects": 40, "clips_per_subject": 4}
DRAWN_STEPS, DRAWN_CLIPS = 2000, 1000
DRAWN_FLAGS = {
    "pretrain_flags": (
        *("--batch-size=16", "--learning-rate=0.001", "--decay=0.05"),
        "--reconstruction-loss=l2",
    ),
    "finetune_flags": (
        "--protocol=kfold",
        "--folds=2",
        "--amplitude=0.15",
        "--learning-rate=0.001",
    ),
}


def parsed(argv):
    p = cli.parser(__doc__)
    add_what(p)
    add_size(p)
    output = p.add_argument_group("output")
    help = "folder of runs and pages (runs/reproduce/<preset>, or .../synthetic-<preset>)"
    output.add_argument("--out", type=pathlib.Path, help=help)
    help = "write the plan as jobs of a cluster's scheduler, and make nothing"
    output.add_argument("--emit", choices=["slurm"], help=help)
    f = p.parse_args(argv)
    if f.all:
        f.table, f.figure = list(plans.TABLES), list(plans.FIGURES)
    if not f.table + f.figure:
        raise UserError("nothing to reproduce; give [table=1,...], [figure=4,...] or [all]")
    drawn = "synthetic" in f.target
    if drawn and len(f.target) > 1:
        raise UserError(
            "[target={targets}]: synthetic stands alone, for no page mixes drawn faces with real "
            "datasets",
            targets=",".join(f.target),
        )
    f.source = f.source or ("synthetic" if drawn else "dfew")
    if f.clips and f.source != "synthetic":
        raise UserError(
            "[clips={clips}]: is only for [source=synthetic]; remove it with [source={source}]",
            clips=f.clips,
            source=f.source,
        )
    if (f.subjects or f.clips_per_subject) and not drawn:
        raise UserError(
            "[subjects], [clips_per_subject]: are only for [target=synthetic]; remove them"
        )
    if f.root and drawn and f.source == "synthetic":
        raise UserError("[root={root}]: drawn faces are read from nowhere; remove it", root=f.root)
    if f.annotations and len(f.target) > 1:
        raise UserError(
            "[annotations={sheet}]: {targets} share no sheet; reproduce one of them at a time",
            sheet=f.annotations,
            targets=", ".join(f.target),
        )
    if f.vae == "random":
        raise UserError(
            "[vae=random]: checks size and speed in pretrain.py, and no table can be made of it; "
            "give an autoencoder"
        )
    for name, value in (DRAWN if drawn else {"preset": "paper", "space": "latent"}).items():
        setattr(f, name, getattr(f, name) or value)
    if drawn and not f.epochs:
        f.steps = f.steps or DRAWN_STEPS
    if drawn and f.source == "synthetic":
        f.clips = f.clips or DRAWN_CLIPS
    default = f"synthetic-{f.preset}" if drawn else f.preset
    f.out = f.out or pathlib.Path("runs/reproduce") / default
    return f


def add_what(p) -> None:
    """The flags that say what is reproduced."""
    what = p.add_argument_group("what")
    tables, figures = (cli.listed(numbers, int) for numbers in (plans.TABLES, plans.FIGURES))
    help = "tables of the paper, 1 to 6"
    what.add_argument("--table", type=tables, default=[], metavar="1,2,...", help=help)
    help = "figures of the paper, 4 to 6"
    what.add_argument("--figure", type=figures, default=[], metavar="4,5,6", help=help)
    what.add_argument("--all", action="store_true", help="all of them")
    proper = functools.partial(registry.proper_name, "target")
    targets = cli.listed(registry.names("target"), proper)
    help = f"{registry.help_of('target')}; one or more, separated by commas"
    what.add_argument("--target", type=targets, required=True, metavar="NAME[,NAME...]", help=help)
    what.add_argument("--dry-run", action="store_true", help="print the plan alone")


def add_size(p) -> None:
    """The flags that every run of the plan has in common."""
    size = p.add_argument_group(
        "size of every run; where nothing is said the scripts' defaults hold, which are the paper's"
    )
    size.add_argument(
        "--source",
        type=functools.partial(registry.proper_name, "source"),
        choices=registry.names("source"),
        help=f"{registry.help_of('source')} (dfew; synthetic for --target=synthetic)",
    )
    help = (
        "folder in which the datasets lie by name, or csv=FOLDER,dfew=FOLDER ($MA2MI_DATA, else "
        "data)"
    )
    size.add_argument("--data-root", "--data", dest="root", metavar="FOLDER", help=help)
    help = "csv: the sheet; of another target where it is not found under its folder"
    size.add_argument("--annotations", help=help)
    help = f"size of the networks (paper; {DRAWN['preset']} for --target=synthetic)"
    size.add_argument("--preset", choices=PRESETS, help=help)
    help = f"of MA2MI (latent; {DRAWN['space']} for --target=synthetic)"
    size.add_argument("--space", choices=("latent", "pixel"), help=help)
    help = f"latent space: the frozen autoencoder ({SD_VAE_HUB})"
    size.add_argument("--vae", default=SD_VAE_HUB, help=help)
    length = size.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive, help="of pre-training")
    help = f"of pre-training ({DRAWN_STEPS} for --target=synthetic)"
    length.add_argument("--steps", type=cli.positive, help=help)
    size.add_argument("--finetune-epochs", type=cli.positive, help="of fine-tuning")
    help = "of fine-tuning, how many: 0, 1, ... (1)"
    size.add_argument("--seeds", type=cli.positive, default=1, help=help)
    help = "pre-trainings of each row, how many: 0, 1, ... (1)"
    size.add_argument("--pretrain-seeds", type=cli.positive, default=1, help=help)
    help = f"synthetic source: number of clips (600; {DRAWN_CLIPS} for --target=synthetic)"
    size.add_argument("--clips", type=cli.positive, help=help)
    help = f"synthetic target: number of subjects ({DRAWN['subjects']})"
    size.add_argument("--subjects", type=cli.positive, help=help)
    help = f"synthetic target: clips of each ({DRAWN['clips_per_subject']})"
    size.add_argument("--clips-per-subject", type=cli.positive, help=help)
    usual = {name: " ".join(words) for name, words in DRAWN_FLAGS.items()}
    help = (
        'more flags of pretrain.py, such as "--batch-size=16"; for --target=synthetic, where they '
        f"say nothing else, {usual['pretrain_flags']}"
    )
    size.add_argument("--pretrain-flags", default="", help=help)
    help = f"more flags of finetune.py; for --target=synthetic also {usual['finetune_flags']}"
    size.add_argument("--finetune-flags", default="", help=help)


def size_of(f) -> Size:
    """What all runs have in common, as run objects that the rows vary."""

    def given(**named) -> dict:
        return {name: value for name, value in named.items() if value is not None}

    source = DatasetSpec(f.source, "source", **given(clips=f.clips))
    sizes = given(subjects=f.subjects, clips_per_subject=f.clips_per_subject)
    sheet = str(pathlib.Path(f.annotations).resolve()) if f.annotations else None
    target = DatasetSpec(f.target[0], "target", annotations=sheet, **sizes)
    how = {"preset": f.preset, "space": f.space, "vae": f.vae, "epochs": f.epochs, "steps": f.steps}
    pretrain = PretrainRun(source, **how)
    finetune = FinetuneRun(target, seeds=f.seeds, **given(epochs=f.finetune_epochs))
    words = passed_on(f, "pretrain_flags")
    of_maer = [word for word in words if flag_names([word]) == ["wrong-labels"]]
    with told_by("pretrain"):
        rest = [word for word in words if word not in of_maer]
        pretrain = flags.parse(PretrainRun, rest, base=pretrain)
        wrong_labels = wrong_labels_of(f, pretrain, of_maer)
    words = passed_on(f, "finetune_flags")
    if given := set(plans.OF_NETWORKS) & set(flag_names(words)):
        raise UserError(
            "[finetune_flags={text}]: the {name} is that of the pre-training; "
            "give it in [pretrain_flags]",
            text=f.finetune_flags,
            name=min(given),
        )
    with told_by("finetune"):
        finetune = flags.parse(FinetuneRun, words, base=finetune)
    if finetune.chosen_protocol == "all":
        why = "--protocol=all tests nobody, so that a table has no scores; give another protocol"
        raise refusal("finetune_flags", f.finetune_flags, why)
    return Size(pretrain, finetune, f.pretrain_seeds, roots_of(f), wrong_labels)


def wrong_labels_of(f, pretrain: PretrainRun, words: list[str]) -> float | None:
    """The share of wrong labels that `words` give to MAER's rows, None without any."""
    if not words:
        return None
    if not registry.reader("source", pretrain.dataset.name).labelled:
        why = f"--wrong-labels is of MAER, and {pretrain.dataset.name} has no labels; remove it"
        raise refusal("pretrain_flags", f.pretrain_flags, why)
    maer = dataclasses.replace(pretrain, objective="maer", delta_ms=None)
    return flags.parse(PretrainRun, words, base=maer).wrong_labels


def roots_of(f) -> str | dict[str, str] | None:
    """Where the datasets lie, from whatever folder one looks: as `Size.roots` takes it."""
    if not f.root:
        return None
    names = dict.fromkeys((f.source, *f.target, *paper.ABLATIONS[3]))
    if places := flags.of_each("root", f.root, [name for name in names if name != "none"]):
        return {name: str(pathlib.Path(place).resolve()) for name, place in places.items()}
    return str(pathlib.Path(f.root).resolve())


def passed_on(f, parameter: str) -> list[str]:
    """The flags in the value of `parameter`, which are passed on to a script, and before them what
    holds of drawn faces where they say nothing else."""
    text = getattr(f, parameter)
    try:
        words = shlex.split(text)
    except ValueError as error:  # a quote that is not closed
        raise refusal(parameter, text, str(error)) from None
    if bad := [word for word in words if not word.startswith("--")]:
        why = f"{bad[0]!r} is no flag; expected --name=value, several separated by spaces"
        raise refusal(parameter, text, why)
    given = set(flag_names(words))
    if decided := sorted(DECIDED & given):
        why = f"--{decided[0]} follows from the plan and from the flags of this script; remove it"
        raise refusal(parameter, text, why)
    if given & {"protocol", "folds-file"}:
        given |= {"protocol", "folds"}
    usual = DRAWN_FLAGS[parameter] if "synthetic" in f.target else ()
    return [*(word for word in usual if not given & set(flag_names([word]))), *words]


def refusal(parameter: str, text: str, why: str) -> UserError:
    """Flags to be passed on cannot be."""
    return UserError("[{parameter}={text}]: {why}", parameter=parameter, text=text, why=why)


@contextlib.contextmanager
def told_by(script: str):
    """An error inside is one of this script: it says so, and names flags that can be given.

    They are flags of ours or, in the value of `pretrain_flags` or `finetune_flags`, of the script.
    """

    def spelled(parameter: str) -> str:
        ours = cli.spell(parameter)
        return ours if ours.startswith("--") else flags.flag_of(parameter)

    try:
        yield
    except UserError as error:
        why = error.spelled(spelled)
        raise UserError("{script}.py: {why}", script=script, why=why) from None


def flag_names(words) -> list[str]:
    """The flags by name, without dashes."""
    return [word.removeprefix("--").partition("=")[0] for word in words]


# ----------------------------------------------------------------------------------------- plan


def look(planned: Planned, out: pathlib.Path) -> progress.State:
    """What lies in a run's folder."""
    return progress.look(planned, out, flags.from_command)


def check_runs(todo, out: pathlib.Path, elsewhere: bool) -> None:
    """Whether the scripts will take these runs, and their datasets and autoencoders are there: now,
    not after the runs before them.

    Args:
      elsewhere: neither need be here.

    Raises:
      UserError: a script would not take its flags, or something is not there.
    """
    for planned in todo:
        run = planned.placed(out)
        with told_by(run.script):
            run_files.check(run)
        for spec in () if elsewhere else run.datasets:
            root = registry.located(spec)
            if not (registry.is_drawn(spec) or root.is_dir()):
                raise UserError(
                    "{root}: no such folder; put {name} there, or give [root]: a folder in "
                    "which the datasets lie by name, or {name}=FOLDER",
                    root=root,
                    name=spec.name,
                )
    needed = dict.fromkeys(vae for planned in todo if (vae := autoencoder_of(planned)))
    for vae in () if elsewhere else needed:
        diffusers.locate(vae)


def autoencoder_of(planned: Planned) -> str | None:
    """The autoencoder that a run needs, None if it needs none."""
    run, latent = planned.run, False
    if run.script == "pretrain":
        latent = run.space == "latent"  # MAER's rows are not
    elif run.keep_reconstruction and planned.init:
        latent = planned.init.run.space == "latent"
    return run.vae if latent else None


def print_plan(todo, states, estimates, out: pathlib.Path) -> None:
    """Every run with what is there of it and how long it will take."""
    words = {"finished": "there already", "unfinished": "goes on"}
    words |= {"absent": "to do", "other": "in the way"}
    rows = []
    for planned in todo:
        time = ""
        if states[planned].waits:
            seconds = estimates[planned]
            time = "unknown" if seconds is None else progress.duration(seconds)
        rows.append((planned.folder, words[states[planned].kind], time))
    cli.table(f"plan, in {out}", ("run", "", "time"), rows)
    waiting = [planned for planned in todo if states[planned].waits]
    left = f"; {progress.time_left(waiting, estimates)}" if waiting else ""
    cli.say(f"{len(todo)} runs, {len(waiting)} to make{left}")
    for planned in todo:
        if states[planned].kind == "other":
            cli.say(states[planned].why)


def call(run: Run) -> int:
    """Makes a run in a process of its own, whose output is our progress; its exit code.

    A signal to this process is passed on, and the run saves. If this process is killed, it does so
    too.
    """
    words = [sys.executable, str(EXPERIMENTS / f"{run.script}.py"), *flags.of(run)]
    environment = processes.without_launcher(signals.environment_of_child())
    told = False
    with (
        cli.LISTENER.stoppable() as asked,
        subprocess.Popen(words, stdout=sys.stderr, env=environment) as child,
    ):
        while child.poll() is None:
            if asked() and not told:
                child.send_signal(cli.WATCH.received)
                told = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(ASKING)
    return child.returncode


def further(f) -> tuple[str, str]:
    """The flags that are passed on, as the page tells them."""
    length = {"--steps": f.steps, "--epochs": f.epochs}
    tuning = {"--epochs": f.finetune_epochs, "--subjects": f.subjects}
    tuning["--clips-per-subject"] = f.clips_per_subject
    told = []
    for named, parameter in ((length, "pretrain_flags"), (tuning, "finetune_flags")):
        words = [f"{flag}={value}" for flag, value in named.items() if value is not None]
        told.append(" ".join([*words, *passed_on(f, parameter)]) or "none")
    return told[0], told[1]


def main(argv):
    f = parsed(argv)
    size = size_of(f)
    with told_by("finetune"):  # a target may not go together with flags that are passed on
        everything = plans.runs_of(plans.plan(plans.TABLES, plans.FIGURES, f.target, size))
    parts = plans.plan(f.table, f.figure, f.target, size)
    todo = plans.runs_of(parts)

    def seen(planned):
        return look(planned, f.out)

    def estimate():
        known = progress.finished_results(everything, f.out, seen)
        return {planned: progress.seconds(planned, known) for planned in todo}

    # The clips of all targets are read for Figure 5, too.
    tuned = [plans.finetuning(size, target, None) for target in f.target]
    states = {planned: seen(planned) for planned in [*todo, *tuned]}
    elsewhere = f.dry_run or bool(f.emit)  # the data may lie where the plan is carried out
    check_runs([planned for planned, state in states.items() if state.waits], f.out, elsewhere)
    print_plan(todo, states, estimate(), f.out)
    if f.dry_run:
        for planned in todo:
            cli.say(flags.command(planned.placed(f.out)))
        return 0

    cli.make_folder(f.out)
    if f.emit:
        waiting = [planned for planned in todo if states[planned].waits]
        cli.say(f"submit the plan by {slurm.write(waiting, f.out, argv)}")
        return 0
    outcome = progress.execute(
        todo,
        f.out,
        call,
        look=seen,
        shown=flags.command,
        estimate=estimate,
        listener=cli.LISTENER,
    )
    cli.keep_compiled_programs()
    content = page.Page(
        parts, f.target, size, f.out, outcome, flags.command, further(f), cli.LISTENER
    )
    with lock.turn(f.out / progress.LOCKS / "page.lock", wait=True):
        written, faults = page.write(content, everything=f.all)
    for planned, why in outcome.items():
        if why:
            cli.say(f"{planned.folder}: {why}")
    for fault in dict.fromkeys(faults):
        cli.say(fault)
    cli.say(f"page: {' '.join(map(str, written))}")
    return 1 if any(outcome.values()) or faults else 0


if __name__ == "__main__":
    cli.run(main)
