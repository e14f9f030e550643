"""Flags as a view of the library's objects: one flag a field, whose default and help stand there.

`parse(PretrainRun, argv, doc)` makes a run from a command line; `of(run)` gives the flags back, so
that `parse(type(run), of(run), doc) == run`. Libraries that make flags from dataclasses (tyro,
simple-parsing, jsonargparse) were tried first: none spells `--delta=3:8` or `--position-loss=false`
without a rule for each field, none gives flags back, and none keeps an error to one line.
"""

import argparse
import dataclasses
import functools
import pathlib
import re
import shlex
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import cli

from ma2mi_jax.clips.pairs import DEFAULT_DELTA
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs.folder import CONFIG, as_typed, is_installed
from ma2mi_jax.training import run_config, run_files
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

Kind = Literal["source", "target"]
DETECTOR = ("detector", "detector_model", "align")  # the fields that choose how faces are found
KIND_OF: dict[type, Kind] = {PretrainRun: "source", FinetuneRun: "target"}


DATASETS = ("dataset", "further")  # fields of a run object that have flags of their own


def flag_of(name: str) -> str:
    """The flag of a field."""
    return f"--{cli.FLAGS.get(name, name).replace('_', '-')}"


# ---------------------------------------------------------------------------------- to a parser


def add(parser: argparse.ArgumentParser, kind: type, only: Collection[str] | None = None) -> None:
    """A flag for each field of a run object but its dataset, in the groups that the fields name.

    A flag that is not given leaves no trace in what the parser returns.

    Args:
      only: names of fields; by default all have flags.
    """
    groups: dict[str, Any] = {group.title: group for group in parser._action_groups}
    exclusive: dict[frozenset, Any] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in DATASETS or (only is not None and field.name not in only):
            continue
        title = field.metadata["group"]
        group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
        if other := field.metadata.get("instead_of"):
            pair = frozenset((field.name, other))
            if pair not in exclusive:
                exclusive[pair] = group.add_mutually_exclusive_group()
            group = exclusive[pair]
        _add_field(group, field, hints[field.name], _help(field, field.metadata["help"]))


def add_dataset(
    parser: argparse.ArgumentParser,
    kinds: Sequence[Kind] = ("source", "target"),
    required: bool = True,
    several: bool = False,
) -> None:
    """The flags of one dataset, of these kinds; `dataset_of` reads them.

    Args:
      several: a person may name several targets, separated by commas.
    """
    data = parser.add_argument_group("data")
    which, one = data, {"required": required}
    if len(kinds) > 1:
        which, one = data.add_mutually_exclusive_group(required=required), {}
    if "source" in kinds:
        _add_name(which, "source", kinds, **one)
    if "target" in kinds:
        _add_name(which, "target", kinds, several, **one)
    hints = typing.get_type_hints(DatasetSpec)
    for field in registry.CHOSEN:
        if field.metadata["only"] in (None, *kinds):
            help = registry.help_of(field.name, kinds)
            if several and field.name in PLACES:
                help += f"; of several targets {PLACES[field.name]}"
            help = _help(field, help)
            _add_field(data, field, hints[field.name], help)


def add_detector(group, default: str) -> None:
    """The flags that choose how faces are found; without one of them it is done as `default`."""
    hints = typing.get_type_hints(DatasetSpec)
    for field in registry.CHOSEN:
        if field.name in DETECTOR:
            _add_field(group, field, hints[field.name], f"{field.metadata['help']} ({default})")


def _add_name(group, kind: Kind, kinds: Sequence[Kind], several: bool = False, **more: Any) -> None:
    proper, names = functools.partial(registry.proper_name, kind), registry.names(kind)
    help = registry.help_of(kind, kinds)
    if several:
        more |= {"type": cli.listed(names, proper), "metavar": "NAME[,NAME...]"}
        help += "; several, separated by commas, are one dataset of the classes that they share"
    else:
        more |= {"type": proper, "choices": names}
    group.add_argument(f"--{kind}", default=argparse.SUPPRESS, help=help, **more)


def _add_field(group, field: dataclasses.Field, hint: Any, help: str) -> None:
    name, flag = field.name, flag_of(field.name)
    how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help}
    bare, choices = _bare(hint), None
    if typing.get_origin(bare) is Literal:
        choices = typing.get_args(bare)
    elif field.metadata.get("choices") == "targets":
        choices = registry.names("target")
    if choices:
        how["choices"] = choices
    elif bare is bool and field.default is False:
        how["action"] = "store_true"
    else:
        how["type"] = _reader(field, bare)
        how["metavar"] = field.metadata.get("metavar") or ("true|false" if bare is bool else None)
    group.add_argument(flag, **how)
    if earlier := cli.EARLIER.get(name):
        group.add_argument(earlier, **how | {"help": argparse.SUPPRESS})


def _help(field: dataclasses.Field, text: str) -> str:
    """The help with the default behind it, as argparse wants it."""
    default = field.default
    if default is True:
        text += " (true)"
    elif default is not None and default is not False and default is not dataclasses.MISSING:
        text += f" ({_text(default)})"
    return text.replace("%", "%%")


def _bare(hint: Any) -> Any:
    """`X` of `X | None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _reader(field: dataclasses.Field, hint: Any) -> Callable[[str], Any]:
    """From a flag's text to the field's value."""
    if hint is bool:
        return cli.truth
    if hint is int:
        least = field.metadata.get("least")
        whole = cli.at_least(1 if least is None else least)
        word = field.metadata.get("none")
        return whole if word is None else lambda text: None if text == word else whole(text)
    if hint is float:
        return float
    if typing.get_origin(hint) is tuple:
        return cli.span
    return str


# --------------------------------------------------------------------------------- to an object


def dataset_of(found: dict[str, Any], base: DatasetSpec | None = None) -> DatasetSpec:
    """The dataset that parsed flags name; they are taken out of `found`.

    Args:
      found: flags that were given, by field.
      base: what holds where no flag is given, if the flags name no other dataset.

    Raises:
      UserError: a flag says nothing about this dataset.
    """
    kind: Kind = "source" if "source" in found or (base and base.kind == "source") else "target"
    name = found.pop(kind, None)
    if base is None or name not in (None, base.name):
        base = DatasetSpec(name, kind)
    fields = {field.name for field in dataclasses.fields(DatasetSpec)}
    given = {name: found.pop(name) for name in fields & found.keys()}
    spec = dataclasses.replace(base, **_absolute(given, "root", "annotations", "detector_model"))
    checked, meant = spec, set(given)
    if other := found.get("test_target"):  # then drawn sizes, or parts left out, may be of that one
        takes = registry.reader("target", other).takes
        lent = {name: value for name, value in registry.of_others(spec).items() if name in takes}
        checked, meant = dataclasses.replace(spec, **lent), meant - lent.keys()
    registry.check(checked, meant)
    return spec


PLACES = {
    "root": "the folder around casme2, samm, ..., or casme2=FOLDER,samm=FOLDER",
    "annotations": "casme2=SHEET,samm=SHEET",
}
"""The fields of a dataset in which several targets differ, and how a person gives them."""


def of_each(field: str, text: str, names: Sequence[str]) -> dict[str, str]:
    """What `casme2=A,samm=B` gives to which dataset; empty if `text` is not of this form.

    Args:
      field: of `DatasetSpec`, that `text` is the value of.
      names: of the datasets that may stand there, proper names.

    Raises:
      UserError: another dataset stands there.
    """
    known = "|".join(map(re.escape, (*registry.SOURCES, *registry.TARGETS)))
    if not re.match(f"({known})=", text):
        return {}
    given = dict(each.split("=", 1) for each in re.split(f",(?=(?:{known})=)", text))
    if other := [name for name in given if name not in names]:
        raise UserError(
            "[{field}={text}]: {other} is none of the datasets of this run; give {names}",
            field=field,
            text=text,
            other=other[0],
            names=" or ".join(names),
        )
    return given


def roots_of(text: str, names: Sequence[str]) -> dict[str, str]:
    """Where several targets lie: as `of_each`, or in a folder that holds them by name.

    Drawn faces lie nowhere, unless they were prepared.
    """
    if found := of_each("root", text, names):
        return found
    places = {name: registry.inside(text, "target", name) for name in names}
    return {
        name: str(place)
        for name, place in places.items()
        if place.exists() or not registry.reader("target", name).drawn
    }


def _targets_of(found: dict[str, Any], base: FinetuneRun | None) -> tuple[DatasetSpec, ...]:
    """The targets that parsed flags name; they are taken out of `found`. As `dataset_of`."""
    before = {spec.name: spec for spec in base.targets} if base else {}
    names = found.pop("target", list(before))
    if len(names) == 1:
        found["target"] = names[0]
        return (dataset_of(found, before.get(names[0], base and base.dataset)),)

    fields = {field.name for field in dataclasses.fields(DatasetSpec)}
    given = {name: found.pop(name) for name in fields & found.keys()}
    places: dict[str, dict[str, str]] = {name: {} for name in names}
    if root := given.pop("root", None):
        for name, place in roots_of(root, names).items():
            places[name]["root"] = place
    if sheet := given.pop("annotations", None):
        sheets = of_each("annotations", sheet, names)
        if not sheets:
            raise UserError(
                "[annotations={sheet}]: of which dataset? With several give {how}",
                sheet=sheet,
                how=PLACES["annotations"],
            )
        for name, place in sheets.items():
            places[name]["annotations"] = place
    taken = {field for name in names for field in registry.reader("target", name).takes}

    def own(name: str) -> dict[str, Any]:
        """What is given to one of them: sizes of drawn faces, for example, are for those alone."""
        others = registry.of_others(DatasetSpec(name, "target")).keys() & taken
        meant = {field: value for field, value in given.items() if field not in others}
        return {"target": name, **meant, **places[name]}

    return tuple(dataset_of(own(name), before.get(name)) for name in names)


def parse(kind: type, argv: Sequence[str], doc: str = "", base: Any = None) -> Any:
    """The run object of a command line.

    Args:
      kind: `PretrainRun` or `FinetuneRun`.
      doc: what the help says first; without it the flags are no script's own.
      base: a run whose fields hold where no flag is given.

    Raises:
      UserError: an unknown flag, a value that makes no sense, or flags that do not go together.
    """
    configured = base is not None or any(word.partition("=")[0] == "--config" for word in argv)
    parser = cli.parser(doc, speaks=bool(doc))
    several = kind is FinetuneRun
    add_dataset(parser, (KIND_OF[kind],), required=not configured, several=several)
    add(parser, kind)
    help = "take everything from an earlier run's config.json; other flags win over it"
    parser.add_argument("--config", type=pathlib.Path, metavar="RUN/config.json", help=help)
    of_launch = cli.add_launch(parser)
    found = vars(parser.parse_args(argv))
    found = {name: value for name, value in found.items() if name not in of_launch}
    if file := found.pop("config", None):
        base = _from_config(kind, file)

    if several:
        spec, *further = _targets_of(found, base)
        found["further"] = tuple(further)
    else:
        spec = dataset_of(found, base and base.dataset)
    found = _absolute(found, "test_root", "test_annotations", "folds_file")
    if base is None:
        return kind(dataset=spec, **found)
    if kind is PretrainRun and found.keys() & {"steps", "epochs"}:
        found = {"steps": None, "epochs": None, **found}  # a new length replaces the old one
    if kind is PretrainRun and found.keys() & {"delta", "delta_ms"}:
        found = {"delta": DEFAULT_DELTA, "delta_ms": None, **found}  # and so does a new δ
    return dataclasses.replace(base, dataset=spec, **found)


def _absolute(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Paths of data as they hold from any folder."""
    places = {name: found[name] for name in names if found.get(name)}
    return {**found, **{name: str(pathlib.Path(place).resolve()) for name, place in places.items()}}


def _from_config(kind: type, file: pathlib.Path) -> Any:
    stored = run_files.read(file.parent if file.name == CONFIG else file)
    asked = stored.asked or run_files.as_meant(from_command(stored.command), stored.resolved)
    if not isinstance(asked, kind):
        raise UserError(
            "[config={file}]: is of {there}.py; give the config.json of a run of {here}.py",
            file=file,
            there=stored.script,
            here=kind.script,
        )
    neutral = {f.name: f.default for f in dataclasses.fields(kind) if not f.compare}
    return dataclasses.replace(asked, **neutral)  # where that run lay is not where this one goes


def from_command(command: str) -> Any:
    """The run object of a command as config.json keeps it, also of a run without `asked`."""
    script, *argv = shlex.split(command)
    kind = run_config.KINDS[pathlib.Path(script).stem]
    return parse(kind, argv)


# ------------------------------------------------------------------------------- back to flags


def of(run: Any) -> list[str]:
    """The flags that make this run, those of default values left out."""
    specs = run.targets if isinstance(run, FinetuneRun) else (run.dataset,)
    words = [f"--{run.dataset.kind}={','.join(spec.name for spec in specs)}"]
    if len(specs) == 1:
        words += _of_fields(run.dataset, without=("name", "kind"))
    else:
        for field in PLACES:
            values = [(spec.name, getattr(spec, field)) for spec in specs]
            if text := ",".join(f"{name}={value}" for name, value in values if value):
                words.append(f"{flag_of(field)}={text}")
        alike = [_of_fields(spec, without=("name", "kind", *PLACES)) for spec in specs]
        words += dict.fromkeys(word for each in alike for word in each)
    return words + _of_fields(run, without=DATASETS)


def _of_fields(of: Any, without: Iterable[str]) -> list[str]:
    words = []
    for field in dataclasses.fields(of):
        value = getattr(of, field.name)
        if field.name in without or value == field.default or value is None:
            continue
        bare = field.default is False
        words.append(flag_of(field.name) if bare else f"{flag_of(field.name)}={_text(value)}")
    return words


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def command(run: Any) -> str:
    """The command as a person types it."""
    place = pathlib.Path(__file__).parent if is_installed(pathlib.Path(__file__)) else "experiments"
    return as_typed([f"{place}/{run.script}.py", *of(run)])
