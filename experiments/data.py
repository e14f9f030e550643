"""The flags that name a dataset, macro or micro, and its reading: for prepare.py and inspect.py, in part for the others."""

import cli

from ma2mi_jax import datasets, faces
from ma2mi_jax.errors import UserError

SOURCES = ("dfew", "ferv39k", "fervk39", "afew", "folder", "synthetic")
TARGETS = ("casme2", "samm", "mmew", "smic", "megc2019", "synthetic")


def add_flags(p, required=True):
    """The group of flags; afterwards `settle(f)`."""
    data = p.add_argument_group("data")
    which = data.add_mutually_exclusive_group(required=required)
    which.add_argument("--source", choices=SOURCES, help="macro-expression videos, for pre-training; fervk39 is ferv39k")
    which.add_argument("--target", choices=TARGETS, help="micro-expression clips, for fine-tuning")
    data.add_argument(
        "--data-root", help="where they lie; megc2019: in casme2, samm, smic there (default: $MA2MI_DATA/<name>, else data/<name>)"
    )
    data.add_argument("--split", help="dfew, ferv39k, afew: that part of the clips, such as train_1, train or val (all)")
    data.add_argument("--annotations", help="targets: the annotation sheet (default: found under the root)")
    add_detector(data)
    data.add_argument("--clips", type=cli.positive, default=600, help="synthetic source: number of clips (600)")
    data.add_argument("--subjects", type=cli.positive, default=12, help="synthetic target: number of subjects (12)")
    data.add_argument("--clips-per-subject", type=cli.positive, default=14, help="synthetic target: clips of each (14)")
    data.add_argument("--amplitude", type=cli.fraction, default=0.3, help="synthetic target: how much of a full expression (0.3)")
    data.add_argument("--data-seed", type=cli.natural, default=0, help="synthetic: seed of the drawn clips (0)")


def add_detector(group):
    """The flags that choose how faces are found."""
    group.add_argument("--detector", choices=("haar", "yunet"), default="haar", help="finds the face where frames are uncropped (haar)")
    group.add_argument("--detector-model", help="yunet: its .onnx file")


def settle(f):
    """Adds `f.kind`, `f.name` and `f.root`."""
    f.kind = "source" if f.source else "target"
    f.name = {"fervk39": "ferv39k"}.get(f.source, f.source) or f.target
    f.root = root(f.data_root, f.name)
    if f.kind == "source" and f.annotations:
        raise UserError(f"--annotations={f.annotations}: only a --target has an annotation sheet")
    if f.kind == "target" and f.split:
        raise UserError(f"--split={f.split}: only a --source has splits")
    return f


def root(flag, name):
    """Where a dataset lies. By default the parts of the composite lie where they do alone, unless it has a folder of its own (prepared)."""
    place = cli.data_root(flag, name)
    return place.parent if name == "megc2019" and not flag and not place.exists() else place


def read(f, size):
    """The Source; drawn frames are of `size`, others as they lie on the disk."""
    common = {"cache": cli.cache_dir(), "size": size, "seed": f.data_seed, "detector": faces.detector(f.detector, f.detector_model)}
    with cli.reading("reading clips") as progress:
        if f.kind == "source":
            return datasets.read_source(f.name, f.root, clips=f.clips, split=f.split, progress=progress, **common)
        drawn = {"subjects": f.subjects, "clips_per_subject": f.clips_per_subject, "amplitude": f.amplitude}
        return datasets.read_target(f.name, f.root, annotations=f.annotations, progress=progress, **drawn, **common)
