"""Ask a fine-tuned run about clips of your own: class probabilities, and pictures of the reasons.

  python experiments/predict.py --run=runs/casme2-from-dfew-paper-0 video.mp4 folder_of_frames \
onset.jpg,apex.jpg

A CLIP is a video, a folder of images of one face in order, or two images of one size, ONSET,APEX.
The face is found and cropped as for training (frames that are face crops already are taken as they
are); onset and apex are spotted (ma2mi_jax/clips/spotting.py) unless they are given: the strongest
change of the face that comes and goes within half a second. Clips with cuts are divided there, and
each part is predicted by itself; so is a video of more than 5 seconds (and 128 frames), unless
onset or apex is given.

No class is named where the head moves more than the face, where the change does not stand out of
what else moves, or where the run's models do not agree. Each model's probabilities are calibrated
on the subjects that the run's folds had not seen; what is shown is their mean over the models,
which is rather too unsure than too sure.

Writes into --out: predictions.json, then a picture a clip, and with --all one of the candidates
over time. Exit code 1 if a clip could not be used, or a picture could not be written; the others
are predicted all the same.
"""

import dataclasses
import functools
import itertools
import pathlib

import cli
import flags

from ma2mi_jax import files
from ma2mi_jax.clips.faces import Deferred
from ma2mi_jax.evaluation import inference, own_clips
from ma2mi_jax.evaluation.inference import Answers, OpenRun
from ma2mi_jax.training import finished


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folder of a finished experiments/finetune.py"
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=pathlib.Path, help=help)
    help = "a model folder (export.py), or the id of one on the Hugging Face hub, in place of --run"
    which.add_argument("--model", help=help)
    help = "a video, a folder of images, or two images ONSET,APEX"
    p.add_argument("clips", nargs="+", metavar="CLIP", help=help)
    for name in ("onset", "apex"):
        help = "of the one CLIP: its frame, counted from 0 (spotted)"
        p.add_argument(f"--{name}", type=cli.natural, help=help)
    help = "the frames are face crops: do not look for a face"
    p.add_argument("--cropped", action="store_true", help=help)
    help = f"seconds from onset to offset, at most ({own_clips.LONGEST:g})"
    p.add_argument("--longest", type=cli.above_zero, default=own_clips.LONGEST, help=help)
    help = "frames per second, where the clips do not say it or say it wrongly"
    p.add_argument("--fps", type=cli.above_zero, help=help)
    help = "every candidate in order of strength, not the best one of each part alone"
    p.add_argument("--all", action="store_true", help=help)
    flags.add_detector(p, "as the run")
    p.add_argument("--out", type=pathlib.Path, help="folder (runs/predict-<first clip>)")
    f = p.parse_args(argv)
    f.out = f.out or pathlib.Path("runs") / f"predict-{default_name(f.clips[0])}"
    return f


def default_name(clip: str) -> str:
    """What the folder is called after: a folder, or the (first) file without its suffix."""
    first = own_clips.two_paths(clip)[0] if own_clips.is_pair(clip) else pathlib.Path(clip)
    name = first.resolve().name if first.is_dir() else first.resolve().stem
    return files.shortened(files.printable(name))


def main(argv):
    f = parsed(argv)
    own_clips.check(f.clips, f.onset, f.apex)
    opened = inference.load(f.model) if f.model else OpenRun(finished.read_with_weights(f.run))
    run = opened.run
    cli.make_folder(f.out)
    cli.keep_compiled_programs()
    asked = {field: getattr(f, field, None) for field in flags.DETECTOR}
    detector = inference.detector_of(run, *asked.values())
    found = inference.predict(
        opened,
        *f.clips,
        onset=f.onset,
        apex=f.apex,
        cropped=f.cropped,
        longest=f.longest,
        fps=f.fps,
        every=f.all,
        detector=detector,
        listener=cli.LISTENER,
    )

    entries, pictures = [], set()
    for answer in found.answers:
        short = files.shortened(answer.part.clip.id.replace("#", "-"))
        name = own_clips.untaken(short, pictures)
        entries.append(answer.to_json() | {"picture": f"{name}.png"})
    what = "model" if f.model else "run"
    record, caution = inference.record_of(run), inference.caution(run)
    content = {
        what: str(getattr(f, what)),
        "models": len(run.members),
        "n": record["n"],
        "subjects": record["subjects"],
        "caution": caution,
        "classes": run.classes,
        "detector": detector.name if detector.used else "",
        "clips": entries,
        "failed": [dataclasses.asdict(each) for each in found.failed],
    }
    files.write_json(f.out / "predictions.json", content)  # whatever becomes of the pictures
    print_answers(found, run.classes)
    print_detector(detector, inference.recorded_detector(run))
    lacking = False
    for name, draw in pictures_of(found, entries, f.all):
        try:
            draw(f.out / name)
        except OSError as error:
            lacking = True
            cli.say(f"no picture {name}: {error.strerror}")
    cli.say(caution)
    cli.say(f"pictures and predictions.json: {f.out}")
    return 1 if found.failed or lacking else 0


def pictures_of(found: Answers, entries, over_time: bool):
    """The name of each picture, and what draws it into a path."""
    for answer, entry in zip(found.answers, entries, strict=True):
        yield entry["picture"], functools.partial(inference.draw, answer=answer)
    if over_time:
        taken = {pathlib.Path(entry["picture"]).stem for entry in entries}
        for item, answers in itertools.groupby(found.answers, lambda each: each.part.item):
            name = own_clips.untaken(files.shortened(f"{item.replace('#', '-')}-over-time"), taken)
            yield (
                f"{name}.png",
                functools.partial(inference.draw_over_time, answers=list(answers)),
            )


def when(frame: int, milliseconds: float | None) -> str:
    """A frame, and when it is shown."""
    return f"{frame}" if milliseconds is None else f"{frame} ({milliseconds / 1000:.2f} s)"


def print_answers(found: Answers, classes) -> None:
    """A row an answer, and what is to be said about single ones."""
    rows = []
    for answer in found.answers:
        part, spotted = answer.part, answer.part.spotted
        places = (
            when(at, part.milliseconds(inside))
            for at, inside in ((answer.onset, spotted.onset), (answer.apex, spotted.apex))
        )
        scores = (f"{mean:.2f} ± {std:.2f}" for mean, std in answer.scores.values())
        verdict = "nothing" if part.nothing else answer.verdict
        rows.append((part.clip.id, *places, verdict, *scores))
    if rows:
        columns = ("clip", "onset", "apex", "verdict", *classes)
        title = f"probabilities, mean ± std over the run's models; chance is {1 / len(classes):.2f}"
        cli.table(title, columns, rows)
    for answer in found.answers:
        part = answer.part
        if answer.doubt:
            cli.say(f"{part.clip.id}, frame {answer.apex}: {answer.verdict}: {answer.doubt}")
    items = {each.part.item: each.part for each in found.answers}
    for item, part in items.items():
        if part.searched:
            cli.say(f"{item}: {part.how}")
        if part.lacks:
            cli.say(f"{item}: the video is cut off or damaged; {part.lacks} are used")
    for each in found.failed:  # lines, not a table, which would fold long paths
        cli.say(f"not used: {each.id}: {each.reason}")


def print_detector(detector: Deferred, seen: str) -> None:
    """What found the faces; `seen` found those that the run saw, where that is known."""
    if not detector.used:
        return
    cli.say(f"faces are found by {detector.name}: {detector.why}")
    if seen not in ("", detector.name):
        cli.say(f"those that the run saw were found by {seen}: crops, and so answers, may differ")


if __name__ == "__main__":
    cli.run(main)
