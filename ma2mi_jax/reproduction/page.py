"""The page of a plan: tables and figures for every target, and where every number comes from."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import blocks, cautions
from ma2mi_jax.evaluation.blocks import Block, Code, Heading, Items, Picture, Table, Text
from ma2mi_jax.reproduction import figures, plans, tables
from ma2mi_jax.reproduction.figures import shown_name, source_name
from ma2mi_jax.reproduction.plans import Part, Planned, Row, Size
from ma2mi_jax.reproduction.progress import duration
from ma2mi_jax.reproduction.tables import Scores
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import run_files
from ma2mi_jax.training.run_config import Run


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page is made of.

    Attributes:
      out: folder of the runs and of the page.
      outcome: run -> "" or why it is not finished.
      shown: a run's command, as a person types it.
      further: flags of the two scripts beside those that the plan decides, in words.
    """

    parts: Sequence[Part]
    targets: Sequence[str]
    size: Size
    out: pathlib.Path
    outcome: Mapping[Planned, str]
    shown: Callable[[Run], str]
    further: tuple[str, str] = ("none", "none")
    listener: Listener = SILENT


def write(page: Page, everything: bool) -> tuple[list[pathlib.Path], list[str]]:
    """Writes the page as .md and .html.

    Args:
      everything: the parts are all there are, and the title says so.

    Returns:
      The paths, and what could not be shown of finished runs.
    """
    parts, targets = page.parts, page.targets
    names = [f"{part.kind}-{part.number}" for part in parts]
    stem = "-".join([*(["all"] if everything else names), *targets])
    where = " and ".join(shown_name(t) for t in targets)
    what = ", ".join(n.replace("-", " ") for n in names)
    title = f"{where}: {'all tables and figures' if everything else what} of MA2MI"
    content: list[Block] = [Heading(title, 1), *map(Text, about(page))]
    if told := warnings_of(page):
        content += [Heading("Caution", 3), Items(told)]
    faults: list[str] = []
    for part in parts:
        content.append(Heading(f"{part.kind.capitalize()} {part.number}. {part.title}"))
        content += map(Text, part.notes)
        for target in targets if part.rows else ():
            if all(target in row.runs or row.missing for row in part.rows):
                content.append(Heading(shown_name(target), 3))
                content += part_blocks(page, part, target, faults)
    content += run_blocks(page)
    written = {
        page.out / f"{stem}.md": blocks.markdown(content, page.out),
        page.out / f"{stem}.html": blocks.html(title, content),
    }
    for path, text in written.items():
        with files.whole(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(written), faults


def about(page: Page) -> list[str]:
    """What the page is, in paragraphs."""
    size, paragraphs = page.size, []
    if list(page.targets) == ["synthetic"]:
        paragraphs.append(
            "The faces here are drawn by a program. They stand in for no real dataset: the page "
            "tells whether the method, as implemented, behaves as the paper says, not how well it "
            "recognises micro-expressions of people."
        )
    paragraphs.append(
        f"Pre-trained on {source_name(size)}, where a row names no other source (the paper: DFEW); "
        f"networks of preset {size.pretrain.preset}, MA2MI in {size.pretrain.space} space. "
        f"Further flags of pretrain.py: {page.further[0]}; of finetune.py: {page.further[1]}."
    )
    spread = "the spread is over all of them, and an interval counts each pre-training once"
    if size.pretrain_seeds == 1:
        spread = (
            "so the spread over seeds, and what an interval knows of it, is of fine-tuning alone"
        )
    paragraphs.append(
        f"{size.pretrain_seeds} pre-training(s) a row, {size.finetune.seeds} fine-tuning seed(s) "
        f"each: {spread}."
    )
    return paragraphs


def warnings_of(page: Page) -> list[str]:
    """What keeps the numbers of finished runs from meaning much, in sentences."""
    found = {
        planned.run: run_files.read_results(page.out / planned.folder, planned.run.script)
        for planned in plans.runs_of(page.parts)
        if not page.outcome[planned]
    }
    people = {run.dataset.name: found[run]["subjects"] for run in found if "subjects" in found[run]}
    few = [
        f"{shown_name(target)}. {told}"
        for target, count in people.items()
        if (told := cautions.few_subjects(count))
    ]
    steps = [found[run]["steps"] for run in found if run.script == "pretrain"]
    epochs = [run.epochs for run in found if run.script == "finetune"]
    return few + cautions.short(steps, epochs)


def part_blocks(page: Page, part: Part, target: str, faults: list[str]) -> list[Block]:
    """A table or figure for one target; what cannot be read or drawn is added to `faults`."""
    path = page.out / f"{part.kind}-{part.number}-{target}.png"
    if part.kind == "figure" and part.number in figures.DRAW:
        (row,) = part.rows
        (run,) = row.runs[target]
        if page.outcome[run]:
            return [Text(f"No picture: {page.outcome[run]}.")]
        draw = figures.DRAW[part.number]
        try:
            caption = draw(path, page.out / run.folder, target, page.size, page.listener)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            # Such as a device without memory left: it costs no other picture.
            faults.append(f"{path.name}: {error}")
            return [Text(f"No picture: {error}.")]
        return [Picture(path, caption, picture_of(part, target))]
    found = {row.key: row_scores(page, row, target, faults) for row in part.rows}
    content = tables.score_blocks(part, target, found)
    if part.kind == "figure" and (caption := figures.draw_figure4(path, part, target, found)):
        content.insert(0, Picture(path, caption, picture_of(part, target)))
    return content


def picture_of(part: Part, target: str) -> str:
    """What the picture of a figure shows, for those who cannot see it."""
    return f"Figure {part.number}, {shown_name(target)}: {part.title}"


def row_scores(page: Page, row: Row, target: str, faults: list[str]) -> Scores | str:
    """A row's scores, or why there are none; a fault of finished runs is added to `faults`."""
    if row.missing:
        return row.missing
    runs = row.runs[target]
    if bad := [page.outcome[run] for run in runs if page.outcome[run]]:
        return bad[0]
    try:
        return tables.read_scores([page.out / run.folder for run in runs])
    except UserError as error:
        faults.append(str(error))
        return str(error)


def run_blocks(page: Page) -> list[Block]:
    """Where every number comes from: time, device and versions of each run, and its command."""
    runs, rows = plans.runs_of(page.parts), []
    for planned in runs:
        if page.outcome[planned]:
            rows.append((planned.folder, "not finished", "", ""))
            continue
        found = run_files.read_results(page.out / planned.folder, planned.run.script)
        versions = found["versions"]
        told = ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "flax"))
        rows.append((planned.folder, duration(found["seconds"]), versions["device"], told))
    caption = "Time of the session that finished the run."
    table = Table(("run", "time", "device", "versions"), rows, caption)
    return [Heading("Runs"), table, Code([page.shown(p.placed(page.out)) for p in runs])]
