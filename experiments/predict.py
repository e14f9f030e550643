"""Ask a fine-tuned run about clips of your own: class probabilities, and a picture of what they rest on.

  python experiments/predict.py --run=runs/casme2-from-dfew-paper-0 video.mp4 folder_of_frames onset.jpg,apex.jpg

A CLIP is a video, a folder of images of one face in order, or two images of one size, ONSET,APEX. The face is found and cropped as for
training (frames that are face crops already are taken as they are), onset and apex are spotted (ma2mi_jax/clips/spotting.py) unless given.
Clips with cuts are divided there, and each part is predicted by itself; so is a video of more than 5 seconds (and 128 frames), unless
onset or apex is given.

Writes into --out: predictions.json and a picture a clip. Exit code 1 if a clip could not be used; the others are predicted all the same.
"""

import dataclasses
import itertools
import math
import pathlib
from typing import NamedTuple

import cli
import numpy as np
import targets
from data import add_detector

from ma2mi_jax import files
from ma2mi_jax.clips import faces, frames, video
from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.clips.clip import Clip, SetAside
from ma2mi_jax.clips.spotting import Spotted, spot
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import gradcam, heatmaps

SECONDS = 5.0  # of a video in which one expression is looked for
UNCLEAR = 1.5  # contrast below which the apex hardly stands out


def flags(argv):
    p = cli.parser(__doc__)
    p.add_argument(
        "--run",
        type=pathlib.Path,
        required=True,
        help="folder of a finished experiments/finetune.py",
    )
    p.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a video, a folder of images, or two images ONSET,APEX",
    )
    p.add_argument(
        "--onset", type=cli.natural, help="of the one CLIP: its frame, counted from 0 (spotted)"
    )
    p.add_argument(
        "--apex", type=cli.natural, help="of the one CLIP: its frame, counted from 0 (spotted)"
    )
    p.add_argument(
        "--cropped", action="store_true", help="the frames are face crops: do not look for a face"
    )
    add_detector(p)
    p.add_argument("--out", type=pathlib.Path, help="folder (runs/predict-<first clip>)")
    f = p.parse_args(argv)
    if (f.onset is not None or f.apex is not None) and len(f.clips) > 1:
        raise UserError(
            f"--onset, --apex: they are of one clip, and {len(f.clips)} are given; predict that clip alone"
        )
    if f.onset is not None and f.apex is not None and f.onset >= f.apex:
        raise UserError(f"--onset={f.onset}, --apex={f.apex}: the apex comes after the onset")
    if (f.onset is not None or f.apex is not None) and is_pair(f.clips[0]):
        raise UserError(
            f"--onset, --apex: {f.clips[0]} is onset and apex already; leave the flags out"
        )
    return f


# ------------------------------------------------------------------------------------------------------------------- clips


class Asked(NamedTuple):
    """A part of a clip to predict: its frames, onset and apex, and where the part begins in the clip as it was given."""

    clip: Clip
    first: int
    frames: np.ndarray  # (n, size, size, 3) uint8
    spotted: Spotted
    how: str  # onset and apex came about


def items_of(texts, whole=False) -> tuple[list[extract.Item], list[SetAside]]:
    """The clips as the command line names them, under short ids, and those that are none; videos are not divided by length if `whole`."""
    items, failed = [], []
    for text in texts:
        try:
            items.append(item_of(text, whole))
        except (ValueError, OSError) as error:
            failed.append(SetAside(text, getattr(error, "strerror", None) or str(error)))
    ids: set[str] = set()
    return [dataclasses.replace(item, id=untaken(item.id, ids)) for item in items], failed


def untaken(name: str, taken: set[str]) -> str:
    """`name`, or the first of name-2, name-3, ... that is not `taken`, which it then is."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    taken.add(found := next(each for each in names if each not in taken))
    return found


def is_pair(text: str) -> bool:
    """Whether a CLIP is given as ONSET,APEX."""
    path = pathlib.Path(text)
    return not path.is_dir() and not path.is_file() and text.count(",") == 1


def item_of(text: str, whole=False) -> extract.Item:
    """One CLIP of the command line; ValueError says why it is none."""
    path = pathlib.Path(text)
    if path.is_dir():
        names = [
            p.name
            for p in path.iterdir()
            if p.suffix.lower() in frames.IMAGE_SUFFIXES and not p.name.startswith(".")
        ]
        if not names:
            raise ValueError(
                "a folder without images; give a folder of the frames of one clip, or the video itself"
            )
        images = frames.ImageFolder(
            str(path.resolve()), tuple(sorted(names, key=frames.frame_order))
        )
        return extract.Item(path.resolve().name, images.folder, images, math.inf)
    if is_pair(text):
        pair = [pathlib.Path(part) for part in text.split(",")]
        if missing := [str(p) for p in pair if not p.is_file()]:
            raise ValueError(f"no such file: {', '.join(missing)}")
        onset, apex = (str(p.resolve()) for p in pair)
        return extract.Item(
            f"{pair[0].stem}-{pair[1].stem}", apex, frames.ImageFolder("", (onset, apex))
        )
    if not path.is_file():
        raise ValueError("no such file or folder")
    if path.suffix.lower() in frames.IMAGE_SUFFIXES:
        raise ValueError("a single image; give two, ONSET,APEX")
    longest = math.inf if whole else max(extract.LONGEST, round(SECONDS * video.video_fps(path)))
    return extract.Item(path.stem, str(path.resolve()), longest=longest)


def parts_of(found: extract.Extracted, size, onset, apex) -> tuple[list[Asked], list[SetAside]]:
    """The usable parts of a clip with onset and apex; with a given onset or apex the one part that holds what is given."""
    failed, asked = list(found.set_aside), []
    usable = [shot for shot in found.verdict.shots if not shot.reason]
    named = {"onset": onset, "apex": apex}
    given = [position for position in named.values() if position is not None]
    how = ", ".join(
        f"{name} {'spotted' if position is None else 'as given'}"
        for name, position in named.items()
    )
    for clip, shot in zip(found.clips, usable, strict=True):
        if not all(shot.first <= position < shot.end for position in given):
            continue
        try:
            images = np.stack(
                [pipeline.read_nearest(clip, i, size)[1] for i in range(len(clip.frames))]
            )
            spotted = spot(
                images,
                *(
                    position if position is None else position - shot.first
                    for position in (onset, apex)
                ),
            )
            asked.append(Asked(clip, shot.first, images, spotted, how))
        except (frames.FrameError, ValueError) as error:
            failed.append(SetAside(clip.id, " ".join(str(error).split())))
    if given and not asked and not failed:
        held, count = (
            " and ".join(map(str, given)),
            max((shot.end for shot in found.verdict.shots), default=0),
        )
        failed.append(
            SetAside(
                found.item.id,
                f"no usable part of the clip's {count} frames holds frame {held}, counted from 0",
            )
        )
    return asked, failed


def read_clips(f, size) -> tuple[list[Asked], list[SetAside]]:
    """All parts of all clips, and what cannot be used."""
    items, failed = items_of(f.clips, whole=f.onset is not None or f.apex is not None)
    found = []
    if items:
        with cli.reading("finding faces") as progress:
            detector = faces.detector(f.detector, f.detector_model)
            cache, cropped = str(cli.cache_dir() / "predict"), f.cropped or None
            found = extract.extract(
                items, cache=cache, size=size, detector=detector, cropped=cropped, progress=progress
            )
    asked = []
    for each in found:
        pair = (0, 1) if each.item.images and not each.item.images.folder else (f.onset, f.apex)
        parts, refused = parts_of(each, size, *pair)
        asked, failed = asked + parts, failed + refused
    return asked, failed


# ------------------------------------------------------------------------------------------------------------------- predictions


def explain(run, asked):
    """Every saved model's word on every pair: arrays with leading axes (models, pairs), as `gradcam.Explanation`."""
    pairs = [part.frames[[part.spotted.onset, part.spotted.apex]][None] for part in asked]
    every = []
    with cli.progress("asking the models", len(run.members)) as advance:
        for _, params, batch_stats in targets.saved_members(run):
            found = [
                gradcam.explain(run.config.architecture, params, batch_stats, pair)
                for pair in pairs
            ]
            every.append(
                [None if x[0] is None else np.concatenate(x) for x in zip(*found, strict=True)]
            )
            advance()
    return gradcam.Explanation(
        *(None if x[0] is None else np.stack(x) for x in zip(*every, strict=True))
    )


def prediction_of(part: Asked, probabilities, classes):
    """One part's entry in predictions.json; `probabilities` (models, classes)."""
    mean, spread = probabilities.mean(0), probabilities.std(0, ddof=min(1, len(probabilities) - 1))
    names = getattr(part.clip.frames, "names", ())
    return {
        "clip": part.clip.id,
        "frames": len(part.frames),
        "onset": part.first + part.spotted.onset,
        "apex": part.first + part.spotted.apex,
        "onset_file": names[part.spotted.onset],
        "apex_file": names[part.spotted.apex],
        "contrast": part.spotted.contrast,
        "prediction": classes[mean.argmax()],
        "probabilities": {
            c: {"mean": m, "std": s}
            for c, m, s in zip(classes, mean.tolist(), spread.tolist(), strict=True)
        },
        "votes": {c: int((probabilities.argmax(-1) == k).sum()) for k, c in enumerate(classes)},
    }


def draw(path, part: Asked, entry, found, k, classes):
    """The picture of part `k`: heat maps are means over the models, for the predicted class."""
    side, shown = part.frames.shape[1], classes.index(entry["prediction"])
    maps = {
        name: None
        if (every := getattr(found, name)) is None
        else np.asarray(gradcam.upsample(every[:, k, shown].mean(0), side))
        for name in heatmaps.MAPS
    }
    row = heatmaps.Row(part.frames[part.spotted.onset], part.frames[part.spotted.apex], **maps)
    scores = {c: (p["mean"], p["std"]) for c, p in entry["probabilities"].items()}
    title = f"{entry['clip']}: {entry['prediction']} {scores[entry['prediction']][0]:.0%}; heat maps for {entry['prediction']}"
    heatmaps.clip_picture(
        path, row, part.spotted, part.first, part.how, scores, f"{title}. No lie detector."
    )


def caution(record, models) -> str:
    """What the numbers are worth."""
    return (
        f"Scores of {models} models, each trained on a part of {record['n']} clips of {record['subjects']} subjects ({record['target']}); "
        f"on the subjects it had not seen they reached accuracy {record['accuracy']:.2f} and UF1 {record['uf1']:.2f} over "
        f"{len(record['classes'])} classes, and how they do on other people and cameras is not known. They guess at a movement of the "
        "face and say nothing about what somebody feels or hides: this is no lie detector."
    )


def default_name(clip) -> str:
    """What the folder of predictions is called after: the name of a folder, or of the (first) file without its suffix."""
    path = pathlib.Path(clip.split(",")[0] if is_pair(clip) else clip).resolve()
    return path.name if path.is_dir() else path.stem


def main(argv):
    f = flags(argv)
    run = targets.read_run(f.run)
    record = files.read_json(f.run / "results.json")
    out = f.out or pathlib.Path("runs") / f"predict-{default_name(f.clips[0])}"
    cli.make_folder(out)
    cli.keep_compiled_programs()
    asked, failed = read_clips(f, run.config.architecture.image_size)
    entries, pictures = [], set()
    if asked:
        found = explain(run, asked)
        for k, part in enumerate(asked):
            entry = prediction_of(part, found.probabilities[:, k], run.classes)
            entry["picture"] = f"{untaken(part.clip.id.replace('#', '-'), pictures)}.png"
            draw(out / entry["picture"], part, entry, found, k, run.classes)
            entries.append(entry)

    text = caution(record, len(run.members))
    files.write_json(
        out / "predictions.json",
        {
            "run": str(f.run),
            "models": len(run.members),
            "n": record["n"],
            "subjects": record["subjects"],
            "caution": text,
        }
        | {
            "classes": run.classes,
            "clips": entries,
            "failed": [dataclasses.asdict(each) for each in failed],
        },
    )
    report(entries, failed, run.classes, text, out)
    return 1 if failed else 0


def report(entries, failed, classes, text, out):
    """The tables on stdout."""
    rows = [
        (
            e["clip"],
            e["onset"],
            e["apex"],
            e["prediction"],
            *("{mean:.2f} ± {std:.2f}".format(**e["probabilities"][c]) for c in classes),
        )
        for e in entries
    ]
    if rows:
        cli.table(
            "probabilities, mean ± std over the run's models",
            ("clip", "onset", "apex", "prediction", *classes),
            rows,
        )
    for e in entries:
        if e["contrast"] < UNCLEAR and e["frames"] > 2:
            cli.out.print(
                f"{e['clip']}: the apex changes the face hardly more than one frame the next; onset and apex are guesses",
                markup=False,
            )
    for each in failed:  # lines, not a table, which would fold long paths
        cli.out.print(f"not used: {each.id}: {each.reason}", markup=False, soft_wrap=True)
    cli.out.print(text, markup=False, soft_wrap=True)
    cli.out.print(f"pictures and predictions.json: {out}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
