"""The parts of the benchmark: which ways each compares, and the table it prints."""

import dataclasses
import functools
import itertools
import operator
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cli
import jax

from benchmarks import collectives, folds, latents, reading, steps
from benchmarks.measure import Row, Way, compare
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.models.autoencoder import SD_VAE


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to measure.

    Attributes:
      modes: of PyTorch.
      forms: of folds; `folds` of them are trained at once, or with None as many as finetune.py
        takes.
      counts: of devices.
      repeats: turns that count.
      matmul_size: side of the matrices whose product is the measure of the device.
      own: what a part takes in place of these, by part and name of the attribute.
    """

    parts: tuple[str, ...]
    frameworks: tuple[str, ...]
    presets: tuple[str, ...]
    inputs: tuple[str, ...]
    precisions: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    modes: tuple[str, ...]
    forms: tuple[str, ...]
    counts: tuple[int, ...]
    folds: int | None
    repeats: int
    matmul_size: int
    own: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def of(self, part: str) -> "Asked":
        """What this part is to measure."""
        return dataclasses.replace(self, **self.own.get(part, {}))

    def sizes(self) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Of every size what its rows say, and what its step is built of."""
        each = itertools.product(self.presets, self.inputs, self.precisions, self.batch_sizes)
        for preset, given, precision, batch_size in each:
            row = {"preset": preset, "input": given, "precision": precision, "batch": batch_size}
            config = steps.config_of(preset, given, precision, batch_size)
            yield row, {"config": config, "given": given}


Rates = Mapping[str, float]  # precision -> FLOP/s of a matrix product
Groups = Iterator[list[Row]]  # a part's rows, as many at a time as are measured together


def fastest(rates: Sequence[Row]) -> dict[str, float]:
    """Of each precision the best rate of any framework."""
    found: dict[str, float] = {}
    for row in rates:
        rate = row.get("flop_per_second", 0.0)
        found[row["precision"]] = max(rate, found.get(row["precision"], 0.0))
    return found


# ----- the pre-training step ----------------------------------------------------------------------


def pretraining_steps(asked: Asked, rates: Rates) -> Groups:
    """A step by every way of every size; `mfu` is the share of the matrix product's rate.

    On a GPU, in bfloat16, one of the ways is ours with cuDNN's attention.
    """
    for same, arguments in asked.sizes():
        ways = _ways(asked, same, arguments)
        half = same["precision"] == "bfloat16"
        if "jax" in asked.frameworks and half and jax.default_backend() == "gpu":
            own = {**arguments, "attention": "cudnn"}
            ways.append(Way(same | {"way": "jax, attention by cuDNN"}, steps.build, own))
        found = compare(ways, asked.repeats)
        flops = next((row["flops"] for row in found if "flops" in row), None)
        # Inside such a step the autoencoder computes in float32, at another rate than the rest.
        two_rates = half and same["input"] == "autoencoder"
        rate = None if two_rates else rates.get(same["precision"])
        yield [_with_mfu(row, flops, rate) for row in found]


def _ways(asked: Asked, row: Row, arguments: Mapping[str, Any]) -> list[Way]:
    ways = []
    if "jax" in asked.frameworks:
        ways.append(Way(row | {"way": "jax"}, steps.build, arguments))
    if "torch" in asked.frameworks:
        from benchmarks import torch_steps

        ways += [
            Way(row | {"way": f"torch {mode}"}, torch_steps.build, {**arguments, "mode": mode})
            for mode in asked.modes
        ]
    return ways


def _with_mfu(row: Row, flops: float | None, rate: float | None) -> Row:
    """The same work counts for every way: the FLOPs of our program before it is compiled."""
    if "seconds" not in row or not flops or not rate:
        return row
    return row | {"flops": flops, "mfu": flops / row["seconds"] / rate}


def ablations(asked: Asked, rates: Rates) -> Groups:
    """The step, whole and without each of its parts, in each framework.

    PyTorch runs in the last of its modes that are asked for.
    """
    changes = {steps.WHOLE: {}} | steps.ABLATIONS
    last = dataclasses.replace(asked, modes=asked.modes[-1:])
    for same, whole in asked.sizes():
        for name, change in changes.items():
            arguments = whole | {"config": steps.without(whole["config"], change)}
            arguments |= {k: v for k, v in change.items() if k == "until"}
            yield compare(_ways(last, same | {"part": name}, arguments), asked.repeats)


def first_steps(asked: Asked, rates: Rates) -> Groups:
    """Seconds from nothing to the end of the first step: the cache is empty, then filled."""
    for same, whole in asked.sizes():
        for way in _ways(asked, same, whole):
            arguments = {**way.arguments, **({"drawn": True} if way.build is steps.build else {})}
            with tempfile.TemporaryDirectory() as folder:
                environment = {
                    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(folder, "jax")),
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "TORCHINDUCTOR_CACHE_DIR": str(pathlib.Path(folder, "torch")),
                }
                for cache in ("empty", "filled"):
                    again = dataclasses.replace(
                        way,
                        row=way.row | {"cache": cache},
                        arguments=arguments,
                        environment=environment,
                    )
                    yield compare([again], repeats=0, warm_up=0)


# ----- folds, devices -----------------------------------------------------------------------------


def many_folds(asked: Asked, rates: Rates) -> Groups:
    """A step of several folds by each form, and what CASME II's size would take from it."""
    choices = itertools.product(asked.presets, asked.precisions, asked.batch_sizes)
    for preset, precision, batch_size in choices:
        config = folds.config_of(preset, precision, batch_size)
        count = asked.folds or folds.at_once(config)
        same = {"preset": preset, "precision": precision, "batch": batch_size, "folds": count}
        ways = []
        if "jax" in asked.frameworks:
            arguments = {"config": config, "count": count}
            ways += [
                Way(same | {"way": form}, folds.build, {**arguments, "form": form})
                for form in asked.forms
            ]
        if "torch" in asked.frameworks:
            from benchmarks import torch_steps

            arguments = {"config": config, "frames": folds.frames_of(config)}
            arguments["members"] = count
            ways += [
                Way(
                    same | {"way": f"torch {mode}"},
                    torch_steps.build_folds,
                    {**arguments, "mode": mode},
                )
                for mode in asked.modes
            ]
        together = set(folds.FORMS) - {"separate"}
        yield [
            folds.whole_protocol(row, config, count, row["way"] in together)
            for row in compare(ways, asked.repeats)
        ]


def devices(asked: Asked, rates: Rates) -> Groups:
    """What devices tell each other in a step, and the step's time with as many pairs on each.

    The devices of a CPU are not real: they share its cores, and their times say nothing.
    """
    fake = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    for preset, precision, count in itertools.product(
        asked.presets, asked.precisions, asked.counts
    ):
        size = asked.batch_sizes[0]
        config = steps.config_of(preset, "pixels", precision, size * count)
        way = Way(
            {"preset": preset, "precision": precision, "devices": count, "batch": size * count},
            collectives.build,
            {"config": config, "given": "pixels", "count": count},
            fake if jax.default_backend() == "cpu" else {},
        )
        yield compare([way], asked.repeats)


def latents_by_precision(asked: Asked, rates: Rates) -> Groups:
    """Latents of a frame by each precision of the autoencoder, in JAX alone.

    A frame takes a CPU seconds, so that one at a time is enough for it.
    """
    count = 1 if jax.default_backend() == "cpu" else min(asked.batch_sizes)
    for preset in asked.presets:
        size = PRESETS[preset].image_size
        ways = [
            Way(
                {"side": size, "batch": count, "precision": precision},
                latents.build,
                {"config": SD_VAE, "precision": precision, "size": size, "frames": count},
            )
            for precision in latents.PRECISIONS
        ]
        found = compare(ways, asked.repeats)
        yield [row | _if_timed(row, "of_a_frame", lambda s: s / count) for row in found]


# ----- reading ------------------------------------------------------------------------------------


def reading_pairs(asked: Asked, rates: Rates) -> Groups:
    """Pairs a second of the same frames, prepared and not, by our stream and by DataLoader."""
    builds = {"ours": reading.build} if "jax" in asked.frameworks else {}
    if "torch" in asked.frameworks:
        from benchmarks import torch_reading

        builds["DataLoader"] = torch_reading.build
    for preset, batch_size in itertools.product(asked.presets, asked.batch_sizes):
        size = PRESETS[preset].image_size
        with reading.drawn(size) as frames:
            ways = [
                Way(
                    {"side": size, "batch": batch_size, "frames": form, "way": name},
                    build,
                    {"clips": clips, "size": size, "batch_size": batch_size},
                )
                for form, clips in frames.items()
                for name, build in builds.items()
            ]
            found = compare(ways, asked.repeats)
        rate = functools.partial(operator.truediv, reading.BATCHES * batch_size)
        yield [row | _if_timed(row, "pairs_per_second", rate) for row in found]


def waiting(asked: Asked, rates: Rates) -> Groups:
    """The share of a step from read pairs that a step from a batch at hand does not take.

    Cached latents are read beside prepared frames; JPEG files have none.
    """
    for same, arguments in asked.sizes():
        given = arguments["given"]
        with reading.drawn(arguments["config"].architecture.image_size) as frames:
            ways = [Way(same | {"frames": "at hand"}, steps.build, arguments)]
            ways += [
                Way(
                    same | {"frames": form},
                    steps.build,
                    {**arguments, "batches": functools.partial(reading.batches, clips, given)},
                )
                for form, clips in frames.items()
                if form == "prepared" or given != "latents"
            ]
            found = compare(ways, asked.repeats)
        at_hand = found[0].get("seconds")
        share = functools.partial(_waited, at_hand)
        yield [row | _if_timed(row, "waiting", share) if at_hand else row for row in found]


def _waited(at_hand: float, seconds: float) -> float:
    return max(0.0, 1 - at_hand / seconds)


def _if_timed(row: Row, name: str, of_seconds: Callable[[float], float]) -> Row:
    return {name: of_seconds(row["seconds"])} if "seconds" in row else {}


# ----- tables -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for people: what stands above it, and a cell's text by column and its heading."""

    title: str
    columns: Mapping[str, tuple[str, Callable[[Any], str]]]
    caption: str = ""


def _plain(*names: str) -> dict[str, tuple[str, Callable[[Any], str]]]:
    return {name: (name, str) for name in names}


def _seconds(value: float) -> str:
    return f"{value:.3g}"


SIZE = _plain("preset", "input", "precision", "batch")
SECONDS = {"seconds": ("seconds", _seconds), "fastest": ("fastest", _seconds)}
FIRST = {"first": ("first step", lambda s: f"{s:.1f} s")}
PEAK = {"peak_bytes": ("peak", lambda b: f"{b / 1e9:.2f} GB")}

MATMUL = Table(
    "matrix product",
    _plain("framework", "precision")
    | {"flop_per_second": ("TFLOP/s", lambda rate: f"{rate / 1e12:.3g}")},
)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the benchmark."""

    measure: Callable[[Asked, Rates], Groups]
    table: Table


PARTS = {
    "step": Part(
        pretraining_steps,
        Table(
            "a pre-training step",
            SIZE
            | _plain("way")
            | SECONDS
            | {
                "flops": ("GFLOP", lambda n: f"{n / 1e9:.4g}"),
                "mfu": ("MFU", lambda share: f"{100 * share:.0f} %"),
            }
            | FIRST
            | PEAK,
            "MFU: share of the matrix product's rate; none where the step is in bfloat16 and the "
            "autoencoder inside it in float32, which have two rates. Peak: of the accelerator; on "
            "a CPU, of the whole process.",
        ),
    ),
    "ablation": Part(
        ablations,
        Table("a pre-training step without a part", SIZE | _plain("way", "part") | SECONDS),
    ),
    "start": Part(
        first_steps,
        Table(
            "until the first step is done, imports not counted",
            SIZE | _plain("way", "cache") | FIRST,
        ),
    ),
    "folds": Part(
        many_folds,
        Table(
            "a fine-tuning step of several folds",
            _plain("preset", "precision", "batch", "folds", "way")
            | SECONDS
            | FIRST
            | {"protocol_seconds": ("all of it", lambda s: f"{s / 60:.1f} min")}
            | PEAK,
            f"All of it: {folds.SUBJECTS} folds over {folds.PAIRS} pairs, worked out from this "
            "step; not run. Without reading, predicting and compiling.",
        ),
    ),
    "latents": Part(
        latents_by_precision,
        Table(
            "the autoencoder's latents",
            _plain("side", "batch", "precision")
            | {
                "of_a_frame": ("ms a frame", lambda s: f"{1e3 * s:.3g}"),
                "error": ("error", lambda share: f"{100 * share:.2g} %"),
            }
            | PEAK,
            "Default: what training does, float32, on NVIDIA cards multiplied as TF32. Error: of "
            "what half a pixel of motion changes, the share that differs from highest. Random "
            "weights.",
        ),
    ),
    "reading": Part(
        reading_pairs,
        Table(
            "reading pairs",
            _plain("side", "batch", "frames", "way")
            | {"pairs_per_second": ("pairs a second", lambda n: f"{n:.0f}")}
            | PEAK,
            "Frames are drawn. Ours reads in threads, DataLoader in a process for each core, whose "
            "memory is not counted.",
        ),
    ),
    "waiting": Part(
        waiting,
        Table(
            "how long a step waits for its pairs",
            SIZE
            | _plain("frames")
            | SECONDS
            | {"waiting": ("waits", lambda share: f"{100 * share:.0f} %")},
        ),
    ),
    "devices": Part(
        devices,
        Table(
            "what devices tell each other in a step",
            _plain("preset", "precision", "devices", "batch", "collectives", "values", "parameters")
            | SECONDS,
            "Values: numbers that each device sends into collectives in a step. The devices of a "
            "CPU are not real, and their times say nothing.",
        ),
    ),
}


def show(table: Table, rows: Sequence[Row]) -> None:
    """Prints rows; what could not be measured, or only alone, says why."""
    headings = [heading for heading, _ in table.columns.values()]
    shown = [
        [text(row[name]) if name in row else "-" for name, (_, text) in table.columns.items()]
        for row in rows
    ]
    cli.table(table.title, tuple(headings), shown, table.caption)
    told = {"failed": "not measured", "alone": "measured alone, for beside the others it failed"}
    for row in rows:
        why = next((name for name in told if name in row), None)
        if why:
            words = [name for name, (_, text) in table.columns.items() if text is str]
            named = ", ".join(str(row[name]) for name in words if name in row)
            cli.say(f"{told[why]}: {named}: {row[why]}")
