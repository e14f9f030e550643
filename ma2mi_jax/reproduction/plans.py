"""Which runs stand behind each table and figure of the paper. Pure: nothing is read or run.

A plan is a list of run objects. A run has one folder, named after what makes it differ, so that
tables share runs: MA2MI's is in Tables 1 to 6 and in all the figures.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ma2mi_jax.clips.pairs import DEFAULT_DELTA
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.reproduction import paper
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun, Run

# Fig. 4; the paper's own axis cannot be read in our copy, but for [3, 8].
DELTAS = ((1, 1), (1, 4), (3, 8), (8, 13), (15, 20))
OF_NETWORKS = ("fusion", "pooling", "normalisation")
"""Fields of a pre-training that a fine-tuning from scratch has too, to be compared with it."""
TABLES, FIGURES = (1, 2, 3, 4, 5, 6), (4, 5, 6)


@dataclasses.dataclass(frozen=True)
class Size:
    """What all runs of a plan have in common.

    Attributes:
      pretrain: the pre-training of a row that names nothing else. Its dataset is the source of
        every row that does not name its own (DFEW in the paper). If its space is `pixel`, there is
        no latent row.
      finetune: the fine-tuning of a row that names nothing else; its dataset gives the detector,
        the annotations and the drawn sizes of every target.
      pretrain_seeds: pre-trainings of each row, each with all the fine-tuning seeds.
      roots: absolute path of the folder in which the datasets lie by name, or the path of each by
        its name; a dataset of which nothing is said lies where it is looked for by itself.
      wrong_labels: of MAER's rows, the others see no labels; None is the source's own share.
    """

    pretrain: PretrainRun
    finetune: FinetuneRun
    pretrain_seeds: int = 1
    roots: str | Mapping[str, str] | None = None
    wrong_labels: float | None = None

    @property
    def source(self) -> str:
        """Name of the source of a row that does not name its own."""
        return self.pretrain.dataset.name


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run of a plan: its `folder` below the plan's, and the pre-training it starts from."""

    folder: str
    run: Run
    init: "Planned | None" = None

    def placed(self, out: pathlib.Path) -> Run:
        """The run in its place below `out`, as a script takes it."""
        start = {"init": str(out / self.init.folder)} if self.init else {}
        return dataclasses.replace(self.run, run=str(out / self.folder), **start)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Attributes:
      key: its name in `paper.py`.
      runs: target -> its runs, one a pre-training seed; of Fig. 5 they are pre-trainings, else
        fine-tunes.
      missing: why there are no runs, else "".
    """

    key: str
    label: str
    runs: Mapping[str, tuple[Planned, ...]]
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """A table or a figure.

    Attributes:
      baseline: key of the row that the others are compared with, "" for none.
      notes: paragraphs above the rows.
    """

    kind: Literal["table", "figure"]
    number: int
    title: str
    rows: tuple[Row, ...]
    baseline: str = ""
    notes: tuple[str, ...] = ()


# ----- runs ---------------------------------------------------------------------------------------


def _at(size: Size, spec: DatasetSpec) -> DatasetSpec:
    """The dataset where the plan's data lie."""
    if size.roots is None or spec.name == "synthetic":
        return spec
    if not isinstance(size.roots, str):
        return dataclasses.replace(spec, root=size.roots.get(spec.name))
    return dataclasses.replace(spec, root=str(registry.inside(size.roots, spec.kind, spec.name)))


def pretraining(
    size: Size,
    seed: int,
    *,
    source: str | None = None,
    clips: int | None = None,
    **different,
) -> Planned:
    """The pre-training of a row.

    Args:
      source: the dataset, None for the plan's.
      clips: number of drawn clips, None for the plan's.
      different: fields of the run in which the row differs: space, objective, fusion,
        position_loss, delta.
    """
    spec = size.pretrain.dataset
    if source not in (None, spec.name):
        reader = registry.reader("source", source)
        spec = DatasetSpec(
            source,
            "source",
            detector=spec.detector,
            detector_model=spec.detector_model,
            align=spec.align if "detector" in reader.takes else "none",
        )
    if clips:
        spec = dataclasses.replace(spec, clips=clips)
    if "delta" in different:  # the row counts frames, whatever the plan counts
        different["delta_ms"] = None
    if different.get("objective") == "maer":  # it has labels, and no δ
        different |= {"delta_ms": None, "wrong_labels": size.wrong_labels}
    run = dataclasses.replace(size.pretrain, dataset=_at(size, spec), seed=seed, **different)
    name = [spec.name, run.space]
    if run.objective == "maer":  # it reconstructs nothing
        run = dataclasses.replace(run, space="pixel")
        name[1] = "maer"
    if run.space == "pixel":  # it needs no autoencoder: plans with another one share this run
        run = dataclasses.replace(run, vae=PretrainRun.vae)
    if spec.name == "synthetic":
        name.insert(1, str(spec.clips))
    if "fusion" in different:
        name.append(f"{run.fusion}-only")
    if not run.position_loss:
        name.append("no-lpos")
    if run.delta != DEFAULT_DELTA:
        name.append("delta-{}-{}".format(*run.delta))
    if run.delta_ms:  # Fig. 4 has the default δ beside it, in frames
        name.append("delta-{}-{}-ms".format(*run.delta_ms))
    return Planned(f"pretrain/{'-'.join(name)}-seed{seed}", run)


def finetuning(
    size: Size, target: str, init: Planned | None, *, tune: str = "both", keep: bool = False
) -> Planned:
    """The fine-tune of a row, from the pre-training `init` or from scratch."""
    spec = dataclasses.replace(size.finetune.dataset, name=target)
    run = dataclasses.replace(
        size.finetune, dataset=_at(size, spec), tune=tune, keep_reconstruction=keep
    )
    if init is None:  # else the pre-training decides
        networks = {name: getattr(size.pretrain, name) for name in OF_NETWORKS}
        usual = {name for name in OF_NETWORKS if networks[name] == getattr(PretrainRun, name)}
        networks |= dict.fromkeys(usual)  # said or not, it is the same run
        run = dataclasses.replace(run, preset=size.pretrain.preset, **networks)
    if keep and init and init.run.space == "latent":
        run = dataclasses.replace(run, vae=size.pretrain.vae)
    name = [f"from-{init.folder.split('/')[1] if init else 'none'}"]
    if tune != "both":
        name.append(f"tune-{tune}")
    if keep:
        name.append("reconstruction")
    return Planned(f"{target}/{'-'.join(name)}", run, init)


# ----- tables and figures -------------------------------------------------------------------------


def plan(
    tables: Sequence[int], figures: Sequence[int], targets: Sequence[str], size: Size
) -> tuple[Part, ...]:
    """The tables and figures asked for, each with its rows and their runs."""
    make = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5, 6: table6}
    draw = {4: figure4, 5: figure5, 6: figure6}
    parts = [make[n](targets, size) for n in tables] + [draw[n](targets, size) for n in figures]
    return tuple(parts)


def runs_of(parts: Iterable[Part]) -> tuple[Planned, ...]:
    """Every run once, each after the one it starts from."""
    runs = (run for part in parts for row in part.rows for rs in row.runs.values() for run in rs)
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
    how = {"tune": tune, "keep": keep}
    return Row(
        key,
        label,
        {t: tuple(finetuning(size, t, init, **how) for init in inits) for t in targets},
    )


def _scratch(size: Size, targets: Sequence[str]) -> Row:
    return Row("none", "none", {t: (finetuning(size, t, None),) for t in targets})


def table1(targets: Sequence[str], size: Size) -> Part:
    """Pre-training: none, MAER, MA2MI in pixel space (†), MA2MI in latent space."""
    maer = Row("maer", "MAER", {}, "the source has no labels to learn from")
    if registry.reader("source", size.source).labelled:
        maer = _row(size, targets, "maer", "MAER", objective="maer")
    latent = Row(
        "latent",
        "MA2MI",
        {},
        "not asked for: it needs the space `latent` and an autoencoder's weights",
    )
    if size.pretrain.space == "latent":
        latent = _row(size, targets, "latent", "MA2MI", space="latent")
    pixel = _row(size, targets, "pixel", "MA2MI† (pixels)", space="pixel")
    return Part("table", 1, "Pre-training", (_scratch(size, targets), maer, pixel, latent), "none")


def table2(targets: Sequence[str], size: Size) -> Part:
    """Which encoder is tuned, and whether L_rec is kept beside the cross-entropy."""
    encoders = {"position": "FPE", "action": "FAE", "both": "FPE and FAE"}
    rows = []
    for keep, word in ((True, "kept"), (False, "dropped")):
        for tune, label in encoders.items():
            key, title = f"{word}-{tune}", f"{label}, L_rec {word}"
            rows.append(_row(size, targets, key, title, tune=tune, keep=keep))
    return Part("table", 2, "Fine-tuning", tuple(rows), "dropped-both")


def table3(targets: Sequence[str], size: Size) -> Part:
    """Source datasets; where faces are drawn, growing numbers of clips."""
    if size.source == "synthetic":
        drawn = size.pretrain.dataset.clips
        counts = sorted({max(2, drawn // 4), max(2, drawn // 2), drawn})
        rows = [_row(size, targets, f"synthetic-{n}", f"{n} drawn clips", clips=n) for n in counts]
        notes = (
            "The paper's sources are real datasets, and none of ours is: the rows are drawn clips, "
            "few and more, and no number of the paper stands beside them.",
        )
    else:
        names = [name for name in paper.ABLATIONS[3] if name != "none"]
        titles = {name: registry.reader("source", name).title for name in names}
        rows = [_row(size, targets, name, titles[name], source=name) for name in names]
        notes = ()
    rows = (_scratch(size, targets), *rows)
    return Part("table", 3, "Source of the pre-training", rows, "none", notes)


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
        note = f"The paper compares methods on {where} here. This page is about other datasets."
        return Part("table", number, title, (), notes=(note,))
    return Part("table", number, title, (_row(size, targets, "ours", "MA2MI, this code"),))


def figure4(targets: Sequence[str], size: Size) -> Part:
    """Ranges of δ."""
    rows = tuple(
        _row(size, targets, "{}:{}".format(*d), "δ in [{}, {}]".format(*d), delta=d) for d in DELTAS
    )
    note = (
        "The paper finds [3, 8] best on all three datasets. Its other ranges and their values "
        "cannot be read in our copy, so the other ranges here are our choice."
    )
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


# ----- the paper ----------------------------------------------------------------------------------


def paper_score(part: Part, row: Row, target: str) -> paper.Score:
    """The paper's accuracy (%) and UF1 for a row on a dataset; None where it has no number."""
    if part.kind == "table" and part.number in paper.ABLATIONS:
        return paper.ABLATIONS[part.number].get(row.key, {}).get(target, (None, None))
    if part.kind == "table":
        ours = target in paper.COMPARED[part.number]
    else:
        ours = (part.number, row.key) == (4, "3:8")
    return paper.OTHERS[target]["MA2MI"] if ours else (None, None)
