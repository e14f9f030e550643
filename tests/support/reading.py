"""Reading a miniature dataset, and what of it the tests compare."""

import pytest

from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError


def read(name, root, tmp_path, **options):
    """What `read_dataset` finds; `options` are fields of the DatasetSpec, or its own arguments."""
    kind = "source" if name in registry.SOURCES else "target"
    own = {name: options.pop(name, None) for name in ("detector", "progress")}
    spec = DatasetSpec(name, kind, root=str(root), **options)
    return registry.read_dataset(spec, size=64, cache=tmp_path / "cache", **own)


def error_of(name, root, tmp_path, **options):
    with pytest.raises(UserError) as error:
        read(name, root, tmp_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def records(source):
    """Of each clip what the sheet decides, and the numbers of frames in its folder."""
    return {
        c.id: (
            c.subject,
            source.classes[c.label],
            len(c.frames),
            c.onset,
            c.apex,
            c.offset,
            c.action_units,
        )
        for c in source.clips
    }


def repairs(source, kind):
    return {repair.id: repair.what for repair in source.repairs if repair.kind == kind}


def notes(source, start):
    return [note for note in source.notes if note.startswith(start)]
