"""The flags that name a dataset, macro or micro, and its reading; what the scripts share."""

import pathlib

import cli

from ma2mi_jax.clips import faces
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.datasets.common import merged
from ma2mi_jax.errors import UserError

SOURCES = ("dfew", "ferv39k", "afew", "folder", "synthetic")
TARGETS = ("casme2", "samm", "mmew", "smic", "megc2019", "synthetic")
DRAWN = {  # flags of drawn datasets alone, with their defaults; data_seed is of either kind
    "source": {"clips": 600},
    "target": {"subjects": 12, "clips_per_subject": 14, "amplitude": 0.3},
    "dataset": {"data_seed": 0},
}


def source_name(text: str) -> str:
    """A flag's name of a source; `fervk39` is another spelling of `ferv39k`."""
    return "ferv39k" if text == "fervk39" else text


def add_flags(p, kinds=("source", "target"), required=True):
    """The group of flags for one dataset of these kinds, which is returned; afterwards `settle(f)`."""
    data = p.add_argument_group("data")
    which, one = (
        (data, {"required": required})
        if len(kinds) == 1
        else (data.add_mutually_exclusive_group(required=required), {})
    )
    if "source" in kinds:
        named = "macro-expression videos, for pre-training; fervk39 is ferv39k"
        which.add_argument("--source", type=source_name, choices=SOURCES, help=named, **one)
        data.add_argument(
            "--split",
            help="dfew, ferv39k, afew: that part of the clips, such as train_1, train or val (all)",
        )
        data.add_argument(
            "--clips", type=cli.positive, help="synthetic source: number of clips (600)"
        )
    if "target" in kinds:
        which.add_argument(
            "--target", choices=TARGETS, help="micro-expression clips, for fine-tuning", **one
        )
        data.add_argument(
            "--annotations", help="targets: the annotation sheet (default: found under the root)"
        )
        data.add_argument(
            "--subjects", type=cli.positive, help="synthetic target: number of subjects (12)"
        )
        data.add_argument(
            "--clips-per-subject", type=cli.positive, help="synthetic target: clips of each (14)"
        )
        data.add_argument(
            "--amplitude",
            type=cli.fraction,
            help="synthetic target: how much of a full expression a clip reaches (0.3)",
        )
    parts = "; megc2019: in casme2, samm, smic there" if "target" in kinds else ""
    data.add_argument(
        "--data-root", help=f"where they lie{parts} (default: $MA2MI_DATA/<name>, else data/<name>)"
    )
    add_detector(data)
    data.add_argument(
        "--data-seed", type=cli.natural, help="synthetic: seed of the drawn clips (0)"
    )
    return data


def add_detector(group):
    """The flags that choose how faces are found."""
    group.add_argument(
        "--detector",
        choices=("haar", "yunet"),
        default="haar",
        help="finds the face where frames are uncropped (haar)",
    )
    group.add_argument("--detector-model", help="yunet: its .onnx file")


def settle(f, other=None):
    """Adds `f.kind`, `f.name` and `f.root`, and the defaults of what is drawn.

    Args:
      other: name of a second dataset that the same flags may be of.

    Raises:
      UserError: a flag says nothing about this dataset.
    """
    f.kind = "source" if getattr(f, "source", None) else "target"
    f.name = getattr(f, f.kind)
    f.root = root(f.data_root, f.name)
    if f.kind == "source" and getattr(f, "annotations", None):
        raise UserError(f"--annotations={f.annotations}: only a --target has an annotation sheet")
    if f.kind == "target" and getattr(f, "split", None):
        raise UserError(f"--split={f.split}: only a --source has splits")
    drawn = is_drawn(f.name, f.root)
    if drawn and f.data_root:
        raise UserError(
            f"--data-root={f.data_root}: nothing prepared lies there, and --{f.kind}=synthetic is drawn; leave the flag out"
        )
    for kind, flags in DRAWN.items():
        for flag, default in flags.items():
            given = getattr(f, flag, None)
            if given is not None and not (
                (drawn or other == "synthetic") and kind in (f.kind, "dataset")
            ):
                shown = flag.replace("_", "-")
                raise UserError(
                    f"--{shown}={given}: of a synthetic {kind} alone, one that is drawn; leave it out with --{f.kind}={f.name}"
                )
            setattr(f, flag, default if given is None else given)
    return f


def is_drawn(name, place):
    """Whether a dataset is drawn and not read; synthetic ones can be prepared, too."""
    return name == "synthetic" and not prepared.is_prepared(place)


def entry(f, name, place, annotations, size):
    """What names a target's clips in a run's configuration, for `read_target`; drawn frames are of `size`."""
    annotations = str(pathlib.Path(annotations).resolve()) if annotations else None
    chosen = {"detector": f.detector, "detector_model": f.detector_model}
    drawn = {flag: getattr(f, flag) for flag in (*DRAWN["target"], *DRAWN["dataset"])}
    return {
        "name": name,
        "data_root": str(place.resolve()),
        "annotations": annotations,
        "size": size,
        **chosen,
        **drawn,
    }


def read_target(target):
    """The Dataset of a configuration's `target` entry; with `test` in it, both datasets' clips of the classes they share."""
    with cli.reading("reading clips") as progress:
        source = registry.read_target(
            target["name"],
            pathlib.Path(target["data_root"]),
            cache=cli.cache_dir(),
            size=target["size"],
            subjects=target["subjects"],
            clips_per_subject=target["clips_per_subject"],
            amplitude=target["amplitude"],
            seed=target["data_seed"],
            annotations=target["annotations"],
            detector=faces.detector(target["detector"], target["detector_model"]),
            progress=progress,
        )
    if not target.get("test"):
        return source
    return merged.joined(source.name, merged.shared(source, read_target(target["test"])))


def read(f, size):
    """The Dataset of settled flags; drawn frames are of `size`, others as they lie on the disk."""
    if f.kind == "target":
        return read_target(entry(f, f.name, f.root, f.annotations, size))
    detector = faces.detector(f.detector, f.detector_model)
    with cli.reading("reading clips") as progress:
        return registry.read_source(
            f.name,
            f.root,
            cache=cli.cache_dir(),
            size=size,
            clips=f.clips,
            seed=f.data_seed,
            split=f.split,
            detector=detector,
            progress=progress,
        )


def root(flag, name):
    """Where a dataset lies. By default the parts of the composite lie where they do alone, unless it has a folder of its own (prepared)."""
    place = cli.data_root(flag, name)
    return place.parent if name == "megc2019" and not flag and not place.exists() else place
