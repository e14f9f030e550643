"""Ask a fine-tuned run about clips of your own: class probabilities, and pictures of the reasons.

  python experiments/predict.py --run=runs/casme2-from-dfew-paper-0 video.mp4 folder_of_frames \
onset.jpg,apex.jpg

A CLIP is a video, a folder of images of one face in order, or two images of one size, ONSET,APEX.
The face is found and cropped as for training (frames that are face crops already are taken as they
are); onset and apex are spotted (ma2mi_jax/clips/spotting.py) unless they are given. Clips with
cuts are divided there, and each part is predicted by itself; so is a video of more than 5 seconds
(and 128 frames), unless onset or apex is given.

Writes into --out: predictions.json, then a picture a clip. Exit code 1 if a clip could not be used,
or a picture could not be written; the others are predicted all the same.
"""

import dataclasses
import pathlib

import cli
import flags

from ma2mi_jax import files
from ma2mi_jax.evaluation import inference
from ma2mi_jax.evaluation.inference import Answers
from ma2mi_jax.training import finished

UNCLEAR = 1.5  # contrast below which the apex hardly stands out


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folder of a finished experiments/finetune.py"
    p.add_argument("--run", type=pathlib.Path, required=True, help=help)
    help = "a video, a folder of images, or two images ONSET,APEX"
    p.add_argument("clips", nargs="+", metavar="CLIP", help=help)
    for name in ("onset", "apex"):
        help = "of the one CLIP: its frame, counted from 0 (spotted)"
        p.add_argument(f"--{name}", type=cli.natural, help=help)
    help = "the frames are face crops: do not look for a face"
    p.add_argument("--cropped", action="store_true", help=help)
    flags.add_detector(p)
    p.add_argument("--out", type=pathlib.Path, help="folder (runs/predict-<first clip>)")
    f = p.parse_args(argv)
    f.out = f.out or pathlib.Path("runs") / f"predict-{default_name(f.clips[0])}"
    return f


def default_name(clip: str) -> str:
    """What the folder is called after: a folder, or the (first) file without its suffix."""
    first = inference.two_paths(clip)[0] if inference.is_pair(clip) else pathlib.Path(clip)
    name = first.resolve().name if first.is_dir() else first.resolve().stem
    return files.shortened(files.printable(name))


def main(argv):
    f = parsed(argv)
    inference.check(f.clips, f.onset, f.apex)
    run = finished.read_finetuned(f.run)
    cli.make_folder(f.out)
    cli.keep_compiled_programs()
    detector = {k: v for k, v in vars(f).items() if k in ("detector", "detector_model")}
    found = inference.predict(
        inference.OpenRun(run),
        *f.clips,
        onset=f.onset,
        apex=f.apex,
        cropped=f.cropped,
        listener=cli.LISTENER,
        **detector,
    )

    entries, pictures = [], set()
    for answer in found.answers:
        short = files.shortened(answer.part.clip.id.replace("#", "-"))
        name = inference.untaken(short, pictures)
        entries.append(answer.to_json() | {"picture": f"{name}.png"})
    record, caution = inference.record_of(run), inference.caution(run)
    content = {
        "run": str(f.run),
        "models": len(run.members),
        "n": record["n"],
        "subjects": record["subjects"],
        "caution": caution,
        "classes": run.classes,
        "clips": entries,
        "failed": [dataclasses.asdict(each) for each in found.failed],
    }
    files.write_json(f.out / "predictions.json", content)  # whatever becomes of the pictures
    print_answers(found, run.classes)
    lacking = False
    for answer, entry in zip(found.answers, entries, strict=True):
        try:
            inference.draw(f.out / entry["picture"], answer)
        except OSError as error:
            lacking = True
            cli.say(f"no picture of {answer.part.clip.id}: {error.strerror}")
    cli.say(caution)
    cli.say(f"pictures and predictions.json: {f.out}")
    return 1 if found.failed or lacking else 0


def print_answers(found: Answers, classes) -> None:
    """A row a part, and what is to be said about single ones."""
    rows = []
    for answer in found.answers:
        scores = (f"{mean:.2f} ± {std:.2f}" for mean, std in answer.scores.values())
        place = (answer.part.clip.id, answer.onset, answer.apex)
        rows.append((*place, answer.prediction, *scores))
    if rows:
        columns = ("clip", "onset", "apex", "prediction", *classes)
        cli.table("probabilities, mean ± std over the run's models", columns, rows)
    for answer in found.answers:
        if answer.part.spotted.contrast < UNCLEAR and len(answer.part.frames) > 2:
            cli.say(
                f"{answer.part.clip.id}: the apex changes the face hardly more than one frame the "
                "next; onset and apex are guesses"
            )
        if answer.part.lacks:
            cli.say(
                f"{answer.part.clip.id}: the video is cut off or damaged; {answer.part.lacks} are "
                "used"
            )
    for each in found.failed:  # lines, not a table, which would fold long paths
        cli.say(f"not used: {each.id}: {each.reason}")


if __name__ == "__main__":
    cli.run(main)
