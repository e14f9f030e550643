"""How many pairs a second come from prepared data, from image files and from videos?

The same frames lie in each form, and the pipeline of training reads them.

  taskset -c 0 python -m benchmarks.pipeline --source=synthetic --clips=40     # of one core
  python -m benchmarks.pipeline --source=folder --data-root=my_videos --workers=2

Writes nothing but a temporary folder that holds the frames in each form. The best of --repeats
counts, by the clock and by the time that this process had a core for itself. On a busy machine the
latter is what an idle one would do.
"""

import pathlib
import resource
import tempfile
import time

import cli
import cv2
import flags
import numpy as np

from ma2mi_jax.clips import frames
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import ImageFolder, read_record
from ma2mi_jax.clips.pairs import DEFAULT_DELTA, future_pair, pairs
from ma2mi_jax.datasets import prepared
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import finetuning_run

# As many as DFEW has. Fewer are repeated: grain's shuffle takes 1.1 ms for a pair of 24 clips, and
# 5 μs for one of so many.
CLIPS = 16372
WARM_UP = 4  # batches: opened files, started threads


def asked(argv):
    """What to measure.

    Raises:
      UserError: a flag makes no sense.
    """
    p = cli.parser(__doc__)
    flags.add_dataset(p)
    p.add_argument(
        "--size",
        type=cli.multiple_of(8),
        default=256,
        help="side of the frames, a multiple of 8 (256)",
    )
    p.add_argument(
        "--batch-size", type=cli.multiple_of(2), default=32, help="pairs a batch, even (32)"
    )
    p.add_argument(
        "--workers",
        type=cli.natural,
        default=0,
        help="processes that read frames; 0 reads in threads (0)",
    )
    p.add_argument("--seconds", type=cli.positive, default=5, help="length of a measurement (5)")
    p.add_argument(
        "--repeats",
        type=cli.positive,
        default=3,
        help="measurements of each form, of which the best counts (3)",
    )
    f = p.parse_args(argv)
    f.spec = flags.dataset_of(vars(f))
    if f.spec.kind == "target":
        raise UserError(
            "[target={target}]: its onsets and apices are loaded once, not streamed; "
            "give a [source] instead",
            target=f.spec.name,
        )
    return f


def main(argv):
    f = asked(argv)
    source = finetuning_run.read_clips([f.spec], f.size, cli.LISTENER)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with cli.progress(
            "preparing frames", sum(len(clip.frames) for clip in source.clips)
        ) as advance:
            prepared.write(
                source,
                f.spec.kind,
                folder / "prepared",
                size=f.size,
                progress=lambda done, total: advance(0, completed=done),
            )
        written = prepared.read(folder / "prepared", source.name, f.spec.kind).clips
        images = tuple(
            in_folder(clip, folder / "images" / str(i)) for i, clip in enumerate(written)
        )
        videos = [in_video(clip, folder / f"{i}.avi", f.size) for i, clip in enumerate(written)]
        records = [read_record(clip.frames, i) for clip in written for i in range(len(clip.frames))]

        measures = {
            "prepared": lambda: stream(f, written),
            "folders of JPEG files": lambda: stream(f, images),
            "as they lie (videos: as the reader keeps them)": lambda: stream(f, source.clips),
            "video files, a seek a pair (no reader here does)": lambda: seek(f, videos),
            "JPEG decoding alone, one thread": lambda: decode(f, records),
        }
        rows = []
        for name, measure in measures.items():
            by_clock, by_core = np.max([measure() for _ in range(f.repeats)], axis=0)
            rows.append((name, f"{by_clock:.0f}", f"{by_core:.0f}" if not f.workers else "-"))
    size = np.mean([len(record) for record in records]) / 1e3
    title = (
        f"{source.name}: {len(written)} clips, {len(records)} frames of {f.size} x {f.size}, "
        f"{size:.1f} kB each, {f.workers} workers"
    )
    cli.table(title, ("pairs a second", "by the clock", "by the core"), rows)
    peak = {
        "this process": resource.RUSAGE_SELF,
        **({"the largest worker": resource.RUSAGE_CHILDREN} if f.workers else {}),
    }
    cli.table(
        "peak memory",
        ("", "MB"),
        [(name, f"{resource.getrusage(who).ru_maxrss / 1024:.0f}") for name, who in peak.items()],
    )


# ----- the forms ----------------------------------------------------------------------------------


def in_folder(clip, folder):
    """The clip as image files: the very bytes of the prepared ones."""
    folder.mkdir(parents=True)
    names = tuple(f"{i}.jpg" for i in range(len(clip.frames)))
    for i, name in enumerate(names):
        (folder / name).write_bytes(read_record(clip.frames, i))
    return Clip(clip.id, ImageFolder(str(folder), names))


def in_video(clip, path, size):
    """(path, number of frames) of the clip as an MPEG-4 video."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (size, size))
    for i in range(len(clip.frames)):
        writer.write(cv2.cvtColor(frames.read_frame(clip.frames, i), cv2.COLOR_RGB2BGR))
    writer.release()
    return str(path), len(clip.frames)


# ----- measurements -------------------------------------------------------------------------------


def stream(f, clips):
    """Pairs a second by `pairs`."""
    clips = clips * -(-CLIPS // len(clips))
    iterator = iter(
        pairs(
            clips,
            delta=DEFAULT_DELTA,
            image_size=f.size,
            batch_size=f.batch_size,
            seed=0,
            workers=f.workers,
        )
    )
    for _ in range(WARM_UP):
        next(iterator)
    rates = repeated(lambda: next(iterator), f.seconds) * f.batch_size
    iterator.close()
    return rates


def seek(f, videos):
    """Pairs a second by opening a video, seeking I_t and going on to I_{t+δ}."""
    rng = np.random.default_rng(0)

    def read():
        path, count = videos[rng.integers(len(videos))]
        first, second = future_pair(count, rng, delta=DEFAULT_DELTA)
        capture = cv2.VideoCapture(path)
        capture.set(cv2.CAP_PROP_POS_FRAMES, first)
        capture.read()
        for _ in range(second - first - 1):
            capture.grab()
        capture.read()
        capture.release()

    return repeated(read, f.seconds)


def decode(f, records):
    """Pairs a second if there were nothing to do but to decode them."""
    rng = np.random.default_rng(0)
    flat = [np.frombuffer(record, np.uint8) for record in records]
    return repeated(
        lambda: [cv2.imdecode(flat[i], cv2.IMREAD_COLOR) for i in rng.integers(len(flat), size=2)],
        f.seconds,
    )


def repeated(act, seconds):
    """How often `act` can be done in a second, by the clock and of this process on a core.

    Returns:
      The two rates, (2,) float64.
    """
    began, worked, count = time.monotonic(), time.process_time(), 0
    while (spent := time.monotonic() - began) < seconds:
        act()
        count += 1
    return count / np.array([spent, time.process_time() - worked])


if __name__ == "__main__":
    cli.run(main)
