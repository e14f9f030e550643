"""Every dataset by its name, and `read_dataset`, which reads any of them.

To add a dataset, write a reader file that ends with a `READER`, and add it to `READERS` below.
docs/add-a-dataset.md shows one from start to end.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any

from ma2mi_jax.clips import faces, yunet_model
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.faces import Align, DetectorName
from ma2mi_jax.datasets import (
    afew,
    annotated,
    casme,
    casme2,
    casme3,
    casme_sq,
    dfew,
    dfme,
    ferv39k,
    folder,
    fourdme,
    mafw,
    megc2019,
    mmew,
    prepared,
    samm,
    smic,
    synthetic,
)
from ma2mi_jax.datasets.common import merged
from ma2mi_jax.datasets.common.reader import Kind, Reader
from ma2mi_jax.errors import UserError, check_range

READERS: tuple[Reader, ...] = (
    dfew.READER,
    ferv39k.READER,
    afew.READER,
    mafw.READER,
    folder.READER,
    synthetic.SOURCE,
    casme2.READER,
    samm.READER,
    mmew.READER,
    smic.READER,
    casme.READER,
    casme_sq.READER,
    casme3.READER,
    dfme.READER,
    fourdme.READER,
    megc2019.READER,
    annotated.READER,
    synthetic.TARGET,
)


# ----- names --------------------------------------------------------------------------------------


def names(kind: Kind) -> tuple[str, ...]:
    """The names of all datasets of this kind, in the order of `READERS`."""
    return tuple(each.name for each in READERS if each.kind == kind)


SOURCES, TARGETS = names("source"), names("target")


def proper_name(kind: Kind, text: str) -> str:
    """The name that `text` is an alias of (`fervk39` → `ferv39k`); any other text as it is."""
    aliases = {alias: each.name for each in READERS if each.kind == kind for alias in each.aliases}
    return aliases.get(text, text)


def reader(kind: Kind, name: str) -> Reader:
    """The reader of the dataset called `name`.

    Raises:
      UserError: there is no such dataset of this kind.
    """
    for each in READERS:
        if (each.kind, each.name) == (kind, proper_name(kind, name)):
            return each
    *first, last = names(kind)
    raise UserError(
        "[{kind}={name}]: no such {kind}; give {names}",
        name=name,
        kind=kind,
        names=f"{', '.join(first)} or {last}",
    )


# ----- what names a dataset -----------------------------------------------------------------------


def _field(
    default: Any,
    help: str,
    *,
    only: Kind | None = None,
    drawn: bool = False,
    least: float | None = None,
    most: float | None = None,
    named: str | None = None,
) -> Any:
    """A field of `DatasetSpec`.

    Args:
      help: what it means, in plain words that name no flag and no default.
      only: the kind of dataset that it is for; None is both.
      drawn: whether it is for drawn faces only.
      least, most: the range of a number; None is no bound.
      named: its word in the name of a run (`training/naming.py`).
    """
    metadata = {"help": help, "only": only, "drawn": drawn, "least": least, "most": most}
    metadata["named"] = named
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What names a dataset, and how it is read.

    It is the argument of `read_dataset`, a group of flags of the scripts, and an entry in a run's
    config.json. Help and defaults of the flags stand here and nowhere else.

      read_dataset(DatasetSpec("casme2", "target", root="/data/CASME2"), size=256)

    An alias given as `name` becomes the proper name.
    """

    name: str
    kind: Kind
    root: str | None = _field(
        None,
        "folder of the dataset; if it is not given: $MA2MI_DATA/<name>, else data/<name>",
        named="",
    )
    split: str | None = _field(
        None,
        "the part of the clips to use, such as train or train_1; if it is not given: all clips",
        only="source",
        named="{}",
    )
    annotations: str | None = _field(
        None,
        "the annotation sheet; if it is not given: the sheet found in the dataset's folder",
        only="target",
        named="by-{}",
    )
    classes: int | None = _field(
        None,
        "number of classes, where papers use several sets (docs/datasets.md); if it is not given: "
        "the dataset's own",
        only="target",
        named="{}-classes",
    )
    without: str | None = _field(
        None, "parts to leave out, separated by commas, such as smic", only="target"
    )
    detector: DetectorName = _field(
        "auto",
        "what finds the face where frames are uncropped; auto: yunet where its model is at hand, "
        "else haar",
        named="{}",
    )
    detector_model: str | None = _field(
        None,
        f"YuNet's file, {yunet_model.FILE}; if it is not given: that of the cache, or of the "
        "Hugging Face hub",
        named="",
    )
    align: Align = _field(
        "none", "eyes: turn the crop of a clip so that the eyes are level (yunet alone sees them)"
    )
    clips: int = _field(
        600, "number of drawn clips", only="source", drawn=True, least=1, named="{}-clips"
    )
    speech: float = _field(
        0.5,
        "share of drawn clips in which the person speaks, from 0 to 1",
        only="source",
        drawn=True,
        least=0,
        most=1,
    )
    subjects: int = _field(
        12, "number of drawn subjects", only="target", drawn=True, least=1, named="{}-subjects"
    )
    clips_per_subject: int = _field(
        14,
        "number of drawn clips of each subject",
        only="target",
        drawn=True,
        least=1,
        named="{}-each",
    )
    amplitude: float = _field(
        0.3,
        "how much of a full expression a drawn clip shows, from 0 to 1",
        only="target",
        drawn=True,
        least=0,
        most=1,
    )
    data_seed: int = _field(0, "seed of the drawn clips", drawn=True, least=0)

    def __post_init__(self):
        object.__setattr__(self, "name", proper_name(self.kind, self.name))  # frozen
        if any(each.name == self.name and "detector" not in each.takes for each in READERS):
            object.__setattr__(self, "detector", "auto")  # said or not, it is the same dataset

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of the parts to leave out."""
        return tuple(self.without.split(",")) if self.without else ()

    @property
    def shown(self) -> str:
        """The name for people, which says what is left out."""
        return f"{self.name} without {' and '.join(self.left_out)}" if self.without else self.name


CHOSEN = tuple(field for field in dataclasses.fields(DatasetSpec) if field.metadata)
"""The fields that say how a dataset is read: all but its name and its kind."""

PURPOSE = {
    "source": "macro-expression videos, for pre-training",
    "target": "micro-expression clips, for fine-tuning",
}


def help_of(name: str, kinds: Collection[Kind] = ("source", "target")) -> str:
    """The help of a field of `DatasetSpec`, or of "source" or "target", which name a dataset.

    Args:
      kinds: what a person can ask for: datasets of other kinds are not mentioned.
    """
    readers = [each for each in READERS if each.kind in kinds]
    if name in PURPOSE:
        listed = (
            f"{each.name} ({', '.join((each.title, *(f'also {a}' for a in each.aliases)))})"
            for each in readers
            if each.kind == name
        )
        return f"{PURPOSE[name]}: {', '.join(listed)}"

    field = next(field for field in CHOSEN if field.name == name)
    text = field.metadata["help"]
    if name == "root":
        text += "".join(
            f"; {each.name}: the folder that holds {', '.join(each.parts)}"
            for each in readers
            if each.parts
        )
    if field.metadata["only"] or field.metadata["drawn"]:
        takers = dict.fromkeys(each.name for each in readers if name in each.takes)
        text += f" (only for {', '.join(takers)})"
    return text


# ----- reading ------------------------------------------------------------------------------------


def located(spec: DatasetSpec) -> pathlib.Path:
    """The folder of a dataset: its root, else `$MA2MI_DATA/<name>`, else `data/<name>`."""
    if spec.root:
        return pathlib.Path(spec.root)
    return inside(os.environ.get("MA2MI_DATA") or "data", spec.kind, spec.name)


def inside(folder: str, kind: Kind, name: str) -> pathlib.Path:
    """Where a dataset lies in a folder that holds datasets by name.

    The parts of a composite lie where each of them lies alone. So the folder of the composite is
    the one around its own, unless there is one of its own, which then holds prepared data.
    """
    place = pathlib.Path(folder) / name
    if reader(kind, name).parts and not place.exists():
        return place.parent
    return place


def is_drawn(spec: DatasetSpec) -> bool:
    """Whether a program draws the clips now. Drawn faces that were prepared are read instead."""
    return reader(spec.kind, spec.name).drawn and not prepared.is_prepared(located(spec))


def check(spec: DatasetSpec, given: Collection[str] = ()) -> None:
    """Passes if every field that was chosen means something for this dataset.

    The disk is touched only to see whether prepared data lie there.

    Args:
      given: names of the fields that a person set. A field with another value than its default
        counts as set in any case.

    Raises:
      UserError: there is no such dataset, or a field that was set is not for it.
    """
    reader(spec.kind, spec.name)
    for field in CHOSEN:
        value = getattr(spec, field.name)
        if value is not None and (field.name in given or value != field.default):
            _check_field(spec, field, value)


def _check_field(spec: DatasetSpec, field: dataclasses.Field, value: Any) -> None:
    """Passes if the value of one field that was set means something for this dataset.

    Raises:
      UserError: it does not.
    """
    found, place, drawn = reader(spec.kind, spec.name), located(spec), is_drawn(spec)
    ready, only = prepared.is_prepared(place), field.metadata["only"]
    shown = {"field": field.name, "value": value, "kind": spec.kind, "name": spec.name}

    # ----- for the other kind, or for drawn faces only -----
    if field.name == "annotations" and spec.kind != only:
        raise UserError(
            "[{field}={value}]: only a [target] has an annotation sheet; remove it", **shown
        )
    if field.name == "split" and spec.kind != only:
        raise UserError("[{field}={value}]: only a [source] has splits; remove it", **shown)
    if field.name == "classes" and spec.kind != only:
        raise UserError("[{field}={value}]: only a [target] has class sets; remove it", **shown)
    if field.name == "root" and drawn:
        raise UserError(
            "[{field}={value}]: no prepared data lie there, and the faces of [{kind}={name}] are "
            "drawn; remove it",
            **shown,
        )
    if field.metadata["drawn"] and (not drawn or only not in (None, spec.kind)):
        if found.drawn and ready:
            raise UserError(
                "[{field}={value}]: {place} holds prepared data, for which it was chosen already; "
                "remove it",
                place=place,
                **shown,
            )
        raise UserError(
            "[{field}={value}] is only for [{drawing}=synthetic]; remove it",
            drawing=only or spec.kind,
            **shown,
        )

    # ----- not for prepared data, or not for this dataset -----
    if field.name in ("split", "annotations", "classes", "align") and ready:
        raise UserError(
            "[{field}={value}]: {place} holds prepared data, for which it was chosen already; "
            "remove it",
            place=place,
            **shown,
        )
    if field.name == "split" and "split" not in found.takes:
        raise UserError("[{field}={value}]: [{kind}={name}] has no splits; remove it", **shown)
    if field.name == "align" and "detector" not in found.takes:
        raise UserError(
            "[{field}={value}]: no face is looked for in [{kind}={name}], whose frames are crops "
            "already; remove it",
            **shown,
        )
    if field.name == "annotations" and "annotations" not in found.takes:
        why = "each of its parts has its own" if found.parts else "it has none"
        raise UserError(
            "[{field}={value}]: [{kind}={name}] takes no sheet, because {why}; remove it",
            why=why,
            **shown,
        )

    if field.name == "classes" and value not in found.class_sets:
        raise UserError(
            "[{field}={value}]: [{kind}={name}] has no such class set; give {there}",
            there=" or ".join(map(str, found.class_sets)) or "none, because it has but one",
            **shown,
        )

    if field.name == "without":
        if not found.parts:
            raise UserError("[{field}={value}]: [{kind}={name}] has no parts; remove it", **shown)
        if not set(spec.left_out) < set(found.parts):
            raise UserError(
                "[{field}={value}]: expected one or more of {parts}, separated by commas, but not "
                "all of them",
                parts=", ".join(found.parts),
                **shown,
            )

    # ----- out of range -----
    check_range(field.name, value, field.metadata["least"], field.metadata["most"])


def of_others(spec: DatasetSpec) -> dict[str, Any]:
    """The fields that are for drawn faces or for composites, and not for this dataset, with their
    defaults: a run of two datasets gives them for the other one."""
    takes = reader(spec.kind, spec.name).takes
    return {
        field.name: field.default
        for field in CHOSEN
        if (field.metadata["drawn"] or field.name == "without") and field.name not in takes
    }


def _check_parts(spec: DatasetSpec, ready: Dataset) -> None:
    """Passes if a prepared composite lacks the parts that are to be left out, and no other.

    Raises:
      UserError: it does not.
    """
    parts = reader(spec.kind, spec.name).parts
    there = {clip.id.partition("/")[0] for clip in ready.clips}
    lacking = [part for part in parts if part not in there]
    shown = {
        "kind": spec.kind,
        "name": spec.name,
        "place": located(spec),
        "there": " and ".join(part for part in parts if part in there),
    }
    if parts and set(lacking) - set(spec.left_out):
        raise UserError(
            "[{kind}={name}]: the prepared data in {place} hold clips of {there} alone; say so by "
            "[without={lacking}], or give another [root]",
            lacking=",".join(lacking),
            **shown,
        )
    if parts and set(spec.left_out) - set(lacking):
        raise UserError(
            "[without={without}]: the prepared data in {place} hold clips of {there}; prepare them "
            "without it, or remove it",
            without=spec.without,
            **shown,
        )


def cache_dir() -> pathlib.Path:
    """Where drawn faces, decoded videos and compiled programs are kept: `$MA2MI_CACHE`, else
    `~/.cache/ma2mi_jax`."""
    return pathlib.Path(os.environ.get("MA2MI_CACHE") or "~/.cache/ma2mi_jax").expanduser()


def read_dataset(
    spec: DatasetSpec,
    *,
    size: int,
    cache: pathlib.Path | str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of a dataset, with all that was repaired or set aside.

    Args:
      spec: which dataset, and how it is read.
      size: side of drawn frames, in pixels. Other frames keep their size until they are loaded.
      cache: folder for drawn or decoded frames, and for what was found out about the others; None
        is `$MA2MI_CACHE`, else `~/.cache/ma2mi_jax`.
      detector: finds faces in place of the detector that `spec` names.
      progress: called as progress(done, total).

    Raises:
      UserError: as for `check`; or nothing usable lies there.
    """
    check(spec)
    found, place = reader(spec.kind, spec.name), located(spec)
    cache = pathlib.Path(cache) if cache else cache_dir()
    if prepared.is_prepared(place):
        ready = prepared.read(place, spec.name, spec.kind)
        _check_parts(spec, ready)
        prepared.check_content(place, cache, progress)
        return ready

    choose = functools.partial(_detector, spec, cache, detector)
    if spec.detector_model:
        choose()  # a wrong file is told even if no frame is to be searched
    searching = faces.Deferred(choose)
    if not found.parts:  # those of a composite keep what they have when they are read alone
        cache = cache / found.name
    chosen = {name: getattr(spec, name) for name in found.takes}
    class_set = found.class_sets.get(spec.classes)
    if "classes" in chosen:
        chosen["classes"] = class_set and class_set.published
    if "detector" in chosen:
        chosen["detector"] = searching
    if "without" in chosen:
        chosen["without"] = spec.left_out
    if found.drawn:
        chosen["size"] = size
    dataset = found.read(str(place), cache=str(cache), progress=progress, **chosen)
    if searching.used:
        note = f"faces are found by {searching.name}" + (searching.why and f": {searching.why}")
        dataset = dataclasses.replace(
            dataset, detector=searching.name, notes=(*dataset.notes, note)
        )
    elif spec.align != "none":
        note = "the frames are face crops already: none is turned to make the eyes level"
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, note))
    return merged.relabelled(dataset, class_set.class_of, class_set.names) if class_set else dataset


def _detector(
    spec: DatasetSpec, cache: pathlib.Path, given: faces.Detector | None
) -> faces.Detector:
    """What finds the faces of a dataset: `given`, else what the spec names."""
    return given or faces.detector(spec.detector, spec.detector_model, spec.align, cache)
