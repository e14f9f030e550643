"""The flags that name a dataset: a view of `registry.DatasetSpec`, where help and defaults stand."""

import functools
import pathlib

import cli

from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.common import merged
from ma2mi_jax.datasets.registry import DatasetSpec

SOURCES, TARGETS = registry.SOURCES, registry.TARGETS
TYPES = {
    "clips": cli.positive,
    "subjects": cli.positive,
    "clips_per_subject": cli.positive,
    "amplitude": cli.fraction,
    "data_seed": cli.natural,
}
DETECTOR = ("detector", "detector_model")
DRAWN = tuple(field for field in registry.CHOSEN if field.metadata["drawn"])


def source_name(text: str) -> str:
    """A source as a flag names it: an alias becomes the proper name."""
    return registry.proper_name("source", text)


def add_flags(p, kinds=("source", "target"), required=True):
    """Adds the flags of one dataset of these kinds; returns their group. Then call `settle`."""
    group = p.add_argument_group("data")
    if len(kinds) == 1:
        which, options = group, {"required": required}
    else:
        which, options = group.add_mutually_exclusive_group(required=required), {}
    for kind in kinds:
        which.add_argument(
            f"--{kind}",
            type=functools.partial(registry.proper_name, kind),
            choices=registry.names(kind),
            help=registry.help_of(kind),
            **options,
        )
    for field in registry.CHOSEN:
        if field.metadata["only"] in (None, *kinds) and field.name not in DETECTOR:
            _add_flag(group, field, kinds)
    add_detector(group)
    return group


def add_detector(group):
    """Adds the flags that choose how faces are found."""
    for field in registry.CHOSEN:
        if field.name in DETECTOR:
            _add_flag(group, field)


def _add_flag(group, field, kinds=("source", "target")):
    """The flag of one field. Drawn fields stay None if they are not given: `settle` fills them."""
    options = {"type": TYPES.get(field.name, str)}
    if field.name == "detector":
        options = {"choices": ("haar", "yunet"), "default": field.default}
    default = "" if field.default is None else f" ({field.default})"
    help = (registry.help_of(field.name, kinds) + default).replace("%", "%%")
    group.add_argument(_flag(field.name), help=help, **options)


def _flag(name):
    return "--data-root" if name == "root" else f"--{name.replace('_', '-')}"


def settle(f, other=None):
    """Adds `f.kind`, `f.name`, `f.root` and `f.spec`, and the defaults of what is drawn.

    Args:
      other: the name of a second target that the flags of drawn faces may be meant for.

    Raises:
      UserError: a flag says nothing about this dataset.
    """
    f.kind = "source" if getattr(f, "source", None) else "target"
    f.name = getattr(f, f.kind)
    asked = {
        field.name: getattr(f, "data_root" if field.name == "root" else field.name, None)
        for field in registry.CHOSEN
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if other is not None and registry.reader("target", other).drawn:
        drawn = registry.reader(f.kind, f.name).drawn
        given = {k: v for k, v in given.items() if drawn or k not in [d.name for d in DRAWN]}

    f.spec = DatasetSpec(f.name, f.kind, **given)
    registry.check(f.spec, given)
    f.root = registry.located(f.spec)
    for field in DRAWN:
        value = asked[field.name]
        setattr(f, field.name, field.default if value is None else value)
    return f


def is_drawn(name, place):
    """Whether a dataset is drawn now and not read; a drawn one may have been prepared."""
    return any(
        each.drawn and registry.is_drawn(DatasetSpec(name, each.kind, root=str(place)))
        for each in registry.READERS
        if each.name == name
    )


def entry(f, name, place, annotations, size):
    """What names a target's clips in a run's configuration, for `read_target`.

    Args:
      size: side of drawn frames, in pixels.
    """
    annotations = str(pathlib.Path(annotations).resolve()) if annotations else None
    chosen = {"detector": f.detector, "detector_model": f.detector_model}
    drawn = {field.name: getattr(f, field.name) for field in DRAWN if field.name != "clips"}
    return {
        "name": name,
        "data_root": str(place.resolve()),
        "annotations": annotations,
        "size": size,
        **chosen,
        **drawn,
    }


def read_target(target):
    """The Dataset of a configuration's `target` entry.

    With `test` in it: both datasets, with the classes that they share.
    """
    drawn = is_drawn(target["name"], pathlib.Path(target["data_root"]))
    left_out = ("root",) if drawn else tuple(field.name for field in DRAWN)
    kept = {**target, "root": target["data_root"]}
    fields = {f.name: kept[f.name] for f in registry.CHOSEN if f.name in kept}
    chosen = {name: value for name, value in fields.items() if name not in left_out}
    found = _read(DatasetSpec(target["name"], "target", **chosen), target["size"])
    if not target.get("test"):
        return found
    return merged.joined(found.name, merged.shared(found, read_target(target["test"])))


def read(f, size):
    """The Dataset of settled flags; drawn frames are of `size`, others as they lie on the disk."""
    return _read(f.spec, size)


def _read(spec, size):
    with cli.reading("reading clips") as progress:
        return registry.read_dataset(spec, size=size, cache=cli.cache_dir(), progress=progress)


def root(flag, name):
    """Where a dataset lies; see `registry.located`."""
    kind = "target" if name in TARGETS else "source"
    return registry.located(DatasetSpec(name, kind, root=flag))
