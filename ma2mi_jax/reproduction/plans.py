"""Which runs stand behind each table and figure of the paper. Pure: nothing is read, nothing is run.

A run has one folder, named after what makes it differ, so that tables share runs: MA2MI's is in Tables 1 to 6 and all the figures.
"""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.reproduction import paper
from ma2mi_jax.training import finetuning as finetune
from ma2mi_jax.training import pretraining as pretrain

MACRO = {"afew": "AFEW", "ferv39k": "FERV39k", "dfew": "DFEW"}  # Table 3
DELTAS = (
    (1, 1),
    (1, 4),
    (3, 8),
    (8, 13),
    (15, 20),
)  # Fig. 4; the paper's own axis cannot be read in our copy, but for [3, 8]
DEFAULT_DELTA = (3, 8)
TABLES, FIGURES = (1, 2, 3, 4, 5, 6), (4, 5, 6)
RESULTS = {"pretrain": "summary.json", "finetune": "results.json"}
# Flags that say how or where a run is made, not what comes out of it.
NEUTRAL = {
    "run",
    "init",
    "overwrite",
    "log-every",
    "checkpoint-every",
    "workers",
    "fold-chunk",
    "compare",
}
# Fields of a run's stored configuration that follow from data and device, not from flags alone.
OPEN = {"architecture", "steps", "dtype", "vae", "classes", "reconstruction"}

Flags = Mapping[str, str | None]  # without the dashes; None: a flag without a value


@dataclasses.dataclass(frozen=True)
class Size:
    """What all runs of a plan have in common.

    Attributes:
      source: macro-expression videos of every row that does not name its own (DFEW in the paper).
      space: of MA2MI where a row does not say; with `pixel` there is no latent row.
      seeds: fine-tuning seeds of each run.
      pretrain_seeds: pre-trainings of each row, each with all the fine-tuning seeds.
      clips: of the synthetic source.
      data: folder in which the datasets lie by name; None is the scripts' default.
      pretrain, finetune: further flags of the two scripts; those that make a row win over them.
    """

    source: str = "dfew"
    preset: str = "paper"
    space: Literal["latent", "pixel"] = "latent"
    seeds: int = 1
    pretrain_seeds: int = 1
    clips: int = 600
    data: str | None = None
    vae: str = "stabilityai/sd-vae-ft-mse"
    pretrain: Flags = dataclasses.field(default_factory=dict)
    finetune: Flags = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a script: `folder` below the plan's, `flags` but for --run and --init, and the pre-training it starts from."""

    folder: str
    script: Literal["pretrain", "finetune"]
    flags: tuple[str, ...]
    init: "Run | None" = None

    @property
    def given(self) -> Flags:
        """The flags by name."""
        return split_flags(self.flags)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Attributes:
      key: its name in `paper.py`.
      runs: target -> its runs, one a pre-training seed; of Fig. 5 they are pre-trainings, else fine-tunes.
      missing: why there are no runs, else "".
    """

    key: str
    label: str
    runs: Mapping[str, tuple[Run, ...]]
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """A table or a figure. `baseline` is the key of the row that the others are compared with, "" for none."""

    kind: Literal["table", "figure"]
    number: int
    title: str
    rows: tuple[Row, ...]
    baseline: str = ""
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------------- runs


def split_flags(flags: Iterable[str]) -> Flags:
    """`--a=b --c` as {a: b, c: None}; the last of equal names wins, as it does on a command line."""
    pairs = (flag.removeprefix("--").partition("=") for flag in flags)
    return {name: value if equals else None for name, equals, value in pairs}


def join_flags(flags: Flags) -> tuple[str, ...]:
    """The inverse of `split_flags`."""
    return tuple(
        f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items()
    )


def pretraining(
    size: Size,
    seed: int,
    *,
    source: str | None = None,
    clips: int | None = None,
    space: str | None = None,
    objective: str = "ma2mi",
    fusion: str | None = None,
    position_loss: bool = True,
    delta: tuple[int, int] = DEFAULT_DELTA,
) -> Run:
    """The pre-training of a row; None is what `size` says."""
    source, space = source or size.source, space or size.space
    maer = objective == "maer"  # it reconstructs nothing and needs no autoencoder
    flags = {"source": source, "preset": size.preset, "space": "pixel" if maer else space}
    name = [source, "maer" if maer else space]
    if source == "synthetic":
        flags["clips"] = str(clips or size.clips)
        name.insert(1, flags["clips"])
    if size.data and source != "synthetic":
        flags["data-root"] = f"{size.data}/{source}"
    if flags["space"] == "latent":
        flags["vae"] = size.vae
    flags |= size.pretrain
    if maer:
        flags["objective"] = objective
    if fusion:
        flags["fusion"] = fusion
        name.append(f"{fusion}-only")
    if not position_loss:
        flags["position-loss"] = "false"
        name.append("no-lpos")
    if delta != DEFAULT_DELTA:
        flags["delta"] = "{}:{}".format(*delta)
        name.append("delta-{}-{}".format(*delta))
    flags["seed"] = str(seed)
    return Run(f"pretrain/{'-'.join(name)}-seed{seed}", "pretrain", join_flags(flags))


def finetuning(
    size: Size, target: str, init: Run | None, *, tune: str = "both", keep: bool = False
) -> Run:
    """The fine-tune of a row, from the pre-training `init` or from scratch."""
    flags: dict[str, str | None] = {"target": target}
    if init is None:  # else the pre-training decides
        flags["preset"] = size.preset
        flags |= {name: value for name, value in size.pretrain.items() if name == "fusion"}
    if size.data and target != "synthetic":
        flags["data-root"] = f"{size.data}/{target}"
    flags |= size.finetune
    name = [f"from-{init.folder.split('/')[1] if init else 'none'}"]
    if tune != "both":
        flags["tune"] = tune
        name.append(f"tune-{tune}")
    if keep:
        flags["keep-reconstruction"] = None
        name.append("reconstruction")
        if init and init.given["space"] == "latent":
            flags["vae"] = size.vae
    flags["seeds"] = str(size.seeds)
    return Run(f"{target}/{'-'.join(name)}", "finetune", join_flags(flags), init)


# ------------------------------------------------------------------------------------------------------------------- tables and figures


def plan(
    tables: Sequence[int], figures: Sequence[int], targets: Sequence[str], size: Size
) -> tuple[Part, ...]:
    """The tables and figures asked for, each with its rows and their runs."""
    make = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5, 6: table6}
    draw = {4: figure4, 5: figure5, 6: figure6}
    return tuple(make[n](targets, size) for n in tables) + tuple(
        draw[n](targets, size) for n in figures
    )


def runs_of(parts: Iterable[Part]) -> tuple[Run, ...]:
    """Every run once, each after the one it starts from."""
    runs = (
        run
        for part in parts
        for row in part.rows
        for of_target in row.runs.values()
        for run in of_target
    )
    return tuple(dict.fromkeys(each for run in runs for each in (run.init, run) if each))


def _row(
    size: Size,
    targets: Sequence[str],
    key: str,
    label: str,
    *,
    tune: str = "both",
    keep: bool = False,
    **different,
) -> Row:
    """A row that is fine-tuned from the pre-training that `different` describes."""
    inits = [pretraining(size, seed, **different) for seed in range(size.pretrain_seeds)]
    return Row(
        key,
        label,
        {
            t: tuple(finetuning(size, t, init, tune=tune, keep=keep) for init in inits)
            for t in targets
        },
    )


def _scratch(size: Size, targets: Sequence[str]) -> Row:
    return Row("none", "none", {t: (finetuning(size, t, None),) for t in targets})


def table1(targets: Sequence[str], size: Size) -> Part:
    """Pre-training: none, MAER, MA2MI in pixel space (†), MA2MI in latent space."""
    maer = Row("maer", "MAER", {}, "--source=folder has no labels to learn from")
    if size.source != "folder":
        maer = _row(size, targets, "maer", "MAER", objective="maer")
    latent = Row(
        "latent",
        "MA2MI",
        {},
        "not asked for: it needs --space=latent and the autoencoder's weights (--vae)",
    )
    if size.space == "latent":
        latent = _row(size, targets, "latent", "MA2MI", space="latent")
    pixel = _row(size, targets, "pixel", "MA2MI† (pixels)", space="pixel")
    return Part("table", 1, "Pre-training", (_scratch(size, targets), maer, pixel, latent), "none")


def table2(targets: Sequence[str], size: Size) -> Part:
    """Which encoder is tuned, and whether L_rec is kept beside the cross-entropy."""
    encoders = {"position": "FPE", "action": "FAE", "both": "FPE and FAE"}
    rows = tuple(
        _row(
            size,
            targets,
            f"{'kept' if keep else 'dropped'}-{tune}",
            f"{label}, L_rec {'kept' if keep else 'dropped'}",
            **how,
        )
        for keep in (True, False)
        for tune, label in encoders.items()
        for how in [{"tune": tune, "keep": keep}]
    )
    return Part("table", 2, "Fine-tuning", rows, "dropped-both")


def table3(targets: Sequence[str], size: Size) -> Part:
    """Source datasets; of the synthetic source, growing numbers of clips."""
    if size.source != "synthetic":
        rows = [_row(size, targets, name, label, source=name) for name, label in MACRO.items()]
        return Part(
            "table", 3, "Source of the pre-training", (_scratch(size, targets), *rows), "none"
        )
    counts = sorted({max(2, size.clips // 4), max(2, size.clips // 2), size.clips})
    rows = [_row(size, targets, f"synthetic-{n}", f"{n} drawn clips", clips=n) for n in counts]
    note = "The paper's sources are not part of this page: its rows stand beside none of ours. Ours are drawn clips, few and more."
    return Part(
        "table", 3, "Source of the pre-training", (_scratch(size, targets), *rows), "none", (note,)
    )


def table4(targets: Sequence[str], size: Size) -> Part:
    """No position encoder; one that learns from L_rec; one that learns from L_pos."""
    rows = (
        _row(size, targets, "no-position", "no FPE", fusion="action"),
        _row(size, targets, "no-lpos", "FPE, without L_pos", position_loss=False),
        _row(size, targets, "with-lpos", "FPE, with L_pos"),
    )
    return Part("table", 4, "Position encoder and L_pos", rows, "no-position")


def table5(targets: Sequence[str], size: Size) -> Part:
    """Other people's methods on CASME II and SAMM."""
    return _others(5, targets, size)


def table6(targets: Sequence[str], size: Size) -> Part:
    """Other people's methods on MMEW."""
    return _others(6, targets, size)


def _others(number: int, targets: Sequence[str], size: Size) -> Part:
    where = " and ".join(paper.DATASETS[name] for name in paper.COMPARED[number])
    title = f"Other methods on {where}"
    targets = [t for t in targets if t in (*paper.COMPARED[number], "synthetic")]
    if not targets:
        return Part(
            "table",
            number,
            title,
            (),
            notes=(
                f"It compares methods on {where}, which this page is not about: no row of ours.",
            ),
        )
    return Part("table", number, title, (_row(size, targets, "ours", "MA2MI, this code"),))


def figure4(targets: Sequence[str], size: Size) -> Part:
    """Ranges of δ."""
    rows = tuple(
        _row(size, targets, "{}:{}".format(*d), "δ in [{}, {}]".format(*d), delta=d) for d in DELTAS
    )
    note = "The paper finds [3, 8] best on all three datasets. Its other ranges and their values cannot be read in our copy: these are ours."
    return Part("figure", 4, "Ranges of δ", rows, "3:8", (note,))


def figure5(targets: Sequence[str], size: Size) -> Part:
    """Reconstructions of onset → apex by the pre-trained network, never tuned on the target."""
    run = pretraining(size, 0)
    return Part(
        "figure", 5, "Reconstructions", (Row("ours", "MA2MI", dict.fromkeys(targets, (run,))),)
    )


def figure6(targets: Sequence[str], size: Size) -> Part:
    """Grad-CAM of the fine-tuned encoders."""
    runs = {t: (finetuning(size, t, pretraining(size, 0)),) for t in targets}
    return Part("figure", 6, "Grad-CAM", (Row("ours", "MA2MI", runs),))


# ------------------------------------------------------------------------------------------------------------------- what is there


def mismatch(run: Run, record: Mapping[str, Any], init: Mapping[str, Any] | None) -> str:
    """How the run whose `config.json` holds `record` differs from what the plan asks; "" if it does not.

    Every field of the stored configuration that flags decide is compared, by today's defaults where no flag is given; other flags, such
    as where the data lie, are compared with those of the stored command.

    Args:
      init: the `config.json` of the pre-training that `run.init` is, None without one.
    """
    stored = record["config"]
    if run.script not in stored:
        return f"it is no run of {run.script}.py"
    if run.script == "finetune" and stored["init"] != (init["config"] if init else "none"):
        return "it starts from another pre-training"
    given, defaults = run.given, _defaults(run)
    asked = {**defaults, **{name.replace("-", "_"): _value(text) for name, text in given.items()}}
    there = {**stored[run.script], **stored[run.script]["architecture"]}
    for name in defaults:
        if there.get(name) != asked[name]:
            return f"{name} is {there.get(name)!r} there, {asked[name]!r} here"
    command = split_flags(word for word in shlex.split(record["command"]) if word.startswith("--"))
    for name in sorted(
        (command.keys() | given.keys()) - NEUTRAL - {name.replace("_", "-") for name in defaults}
    ):
        here, before = (
            "absent" if name not in flags else flags[name] or "given" for flags in (given, command)
        )
        if here != before:
            return f"--{name} is {before} there, {here} here"
    return ""


def _defaults(run: Run) -> dict[str, Any]:
    """The fields of a run's configuration that flags decide, with their defaults."""
    kind = {"pretrain": pretrain.Config, "finetune": finetune.Config}[run.script]
    found = {f.name: f.default for f in dataclasses.fields(kind) if f.name not in OPEN}
    if run.init is None:  # else the architecture is that of the pre-training
        found |= dataclasses.asdict(PRESETS[run.given["preset"]])
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in found.items()
    }


def _value(text: str | None) -> Any:
    """A flag's value as the configuration holds it."""
    if text is None or text in ("true", "false"):
        return text != "false"
    if ":" in text:
        return [int(end) for end in text.split(":")]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def seconds(run: Run, finished: Mapping[Run, Mapping[str, Any]]) -> float | None:
    """How long a run will take at the rate of finished runs of its kind; None before there is one.

    Args:
      finished: runs of the same size with the content of their `summary.json` or `results.json`.
    """
    alike = [result for other, result in finished.items() if _kind(other) == _kind(run)]
    if not alike:
        return None
    if run.script == "finetune":
        return max(
            result["seconds"] for result in alike
        )  # a resumed run's seconds are of its last session alone
    step = sum(result["seconds"] for result in alike) / max(
        1, sum(result["steps_this_session"] for result in alike)
    )
    same_data = [
        result["steps"]
        for other, result in finished.items()
        if other.script == "pretrain" and _data(other) == _data(run)
    ]
    steps = int(run.given["steps"]) if "steps" in run.given else max(same_data, default=None)
    return None if steps is None else steps * step


def _kind(run: Run) -> tuple:
    """What a run's rate depends on."""
    given = run.given
    return (
        run.script,
        given.get("target"),
        "keep-reconstruction" in given,
        given.get("objective"),
        given.get("space"),
    )


def _data(run: Run) -> tuple:
    """What a pre-training's number of steps depends on."""
    return run.given["source"], run.given.get("clips")


def paper_score(part: Part, row: Row, target: str) -> paper.Score:
    """What the paper has for a row on a dataset: accuracy in percent and UF1, None where it has nothing."""
    if part.kind == "table" and part.number in paper.ABLATIONS:
        return paper.ABLATIONS[part.number].get(row.key, {}).get(target, (None, None))
    if (part.kind == "table" and target in paper.COMPARED[part.number]) or (
        part.kind,
        part.number,
        row.key,
    ) == ("figure", 4, "3:8"):
        return paper.OTHERS[target]["MA2MI"]
    return (None, None)
