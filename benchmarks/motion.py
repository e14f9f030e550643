"""Measure by what two frames of a clip differ: noise, light, the head, the rest.

Is one dataset like another? Are drawn faces like real ones?

  python -m benchmarks.motion --source=folder --data-root=my_videos
  python -m benchmarks.motion --source=synthetic --clips=200

Prints medians over clips, of frames in [−1, 1]:

  copy        mean absolute difference of the pair
  light       by how much brightness differs
  less light  the difference once a gain is taken out
  less head   the same once an affine motion of the head is taken out, too
  face        the same of blurred frames, in which noise hardly counts
  noise       deviation of a frame's fine grain, in grey levels of 255, small motions included

These are estimates from pixels. Drawn macro clips know the truth, so for them a second table says
what L_rec is left, on people of no dataset, if a network knows a part of the change: see `floors`
in ma2mi_jax/datasets/drawn/truth.py.
"""

import dataclasses
import functools

import cli
import cv2
import flags
import numpy as np

from ma2mi_jax.clips.pairs import DEFAULT_DELTA, future_pair, load_pairs
from ma2mi_jax.datasets import registry
from ma2mi_jax.images import shrink
from ma2mi_jax.training import finetuning_run

BLUR = 2.0  # pixels: what is finer counts as grain
COLUMNS = ("copy", "light", "less light", "less head", "face", "noise")


def asked(argv):
    """What to measure.

    Raises:
      UserError: a flag makes no sense.
    """
    p = cli.parser(__doc__)
    flags.add_dataset(p)
    p.add_argument("--size", type=cli.positive, default=96, help="side of the frames (96)")
    p.add_argument(
        "--delta",
        type=cli.span,
        default=DEFAULT_DELTA,
        metavar="A:B",
        help="frames between the two (3:8)",
    )
    p.add_argument("--pairs", type=cli.positive, default=4, help="of each clip (4)")
    f = p.parse_args(argv)
    f.spec = flags.dataset_of(vars(f))
    return f


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), BLUR)


def parts(frame, future):
    """The measures of COLUMNS for one pair of float32 frames (H, W, 3) in [−1, 1]."""
    gain = ((frame + 1) * (future + 1)).sum() / np.square(frame + 1).sum()
    lit = (frame + 1) * gain - 1
    motion = np.eye(2, 3, dtype=np.float32)
    try:
        ends = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-5)
        _, motion = cv2.findTransformECC(
            blurred(future).mean(-1),
            blurred(lit).mean(-1),
            motion,
            cv2.MOTION_AFFINE,
            ends,
            None,
            1,
        )
    except cv2.error as error:  # it finds no motion that fits: the frames then count as they are
        cli.log(f"no affine motion found ({str(error).splitlines()[0][-60:]})")
    side = frame.shape[0]
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    moved = cv2.warpAffine(lit, motion, (side, side), **how)
    grain = (frame - blurred(frame)) - (future - blurred(future))
    noise = (
        1.48 * np.median(np.abs(grain)) / np.sqrt(2) * 127.5
    )  # 1.48: from a median deviation to a standard one
    distance = lambda a, b: np.abs(a - b).mean()  # noqa: E731
    return (
        distance(frame, future),
        abs(gain - 1),
        distance(lit, future),
        distance(moved, future),
        distance(blurred(moved), blurred(future)),
        noise,
    )


def main(argv):
    f = asked(argv)
    clips = finetuning_run.read_clips([f.spec], f.size, cli.LISTENER).clips
    rng = np.random.default_rng(0)
    measured = []
    with cli.progress("measuring", len(clips)) as advance:
        for clip in clips:
            if f.spec.kind == "target":
                shown = [clip]
            else:
                places = [future_pair(len(clip.frames), rng, delta=f.delta) for _ in range(f.pairs)]
                shown = [dataclasses.replace(clip, onset=t, apex=u) for t, u in places]
            frames, _ = load_pairs(shown, f.size)
            measured.append(
                np.mean([parts(*pair) for pair in frames.astype(np.float32) / 127.5 - 1], axis=0)
            )
            advance()
    quartiles = np.quantile(measured, (0.25, 0.5, 0.75), axis=0)
    names = ("lower quarter", "median", "upper quarter")
    rows = [
        (name, *(f"{value:.4f}" for value in row))
        for name, row in zip(names, quartiles, strict=True)
    ]
    cli.table(f"{f.spec.name}: {len(clips)} clips, {f.size} px", ("", *COLUMNS), rows)
    if f.spec.kind == "source" and registry.is_drawn(f.spec):
        show_floors(f, len(clips))


def show_floors(f, pairs):
    """What L_rec is left of so many pairs of other people; exact, for drawn faces alone."""
    from ma2mi_jax.datasets.drawn import truth

    cache = str(registry.cache_dir() / f.spec.name)
    asked = {"size": f.size, "delta": f.delta, "speech": f.spec.speech}
    with cli.LISTENER.reading("drawing") as progress:
        known = truth.held_out_pairs(cache, pairs=pairs, **asked, progress=progress)
    rows = []
    for side in (1, 2):
        for norm in ("l1", "l2"):
            for denoised in (True, False):
                found = truth.floors(
                    known, norm, latent=functools.partial(shrink, times=side), denoised=denoised
                )
                name = f"{norm}, Z of {side} x {side} px" + ("" if denoised else ", noise of Z_t")
                rows.append((name, *(f"{value:.5f}" for value in found.values())))
    cli.table(f"L_rec if this is known: {pairs} pairs", ("", *found), rows)


if __name__ == "__main__":
    cli.run(main)
