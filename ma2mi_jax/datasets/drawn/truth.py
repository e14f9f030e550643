"""What drawn faces know of themselves: by what two frames differ, and how well it can be predicted.

`held_out_pairs` draws pairs (I_t, I_{t+δ}) of people whom no dataset shows, whatever the seeds, and
says for each how the action units and the head move. It also draws what a perfect prediction would
be if the head alone moved right, the face alone, or both. `floors` turns these into the least L_rec
of a network that knows so much.

Between two frames of a clip three things change: the face, that is the action units with blinks and
speech; the head, that is the pose; and the brightness, by 0.2 % (`films.FLICKER`). Then each frame
gets noise of its own.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ma2mi_jax.clips.pairs import DEFAULT_DELTA, future_pair
from ma2mi_jax.datasets.drawn import films
from ma2mi_jax.datasets.drawn.films import Progress, Script
from ma2mi_jax.datasets.drawn.portrait import Light, Pose
from ma2mi_jax.datasets.drawn.synthetic import EMOTIONS, macro_script
from ma2mi_jax.files import array_to_fill
from ma2mi_jax.images import to_float
from ma2mi_jax.losses import Norm, reconstruction_loss

POSE = Pose._fields
"""Names of the columns of `Truth.pose`; those of `Truth.units` are `portrait.UNITS`."""

KNOWN = ("still", "head", "face", "both")
"""What is drawn of a pair without noise: I_t itself; I_t with the head of t+δ; with the face of
t+δ; with both, and then also with the light of t+δ. So `both` is I_{t+δ} but for the noise."""

WHITE = 65535  # clean images are kept in 16 bits, 256 times finer than frames


@dataclasses.dataclass(frozen=True)
class Truth:
    """Pairs of frames of N people, and what is known of them.

    Attributes:
      frames: (N, 2, H, W, 3) uint8, I_t and I_{t+δ}, with noise, as a network sees them.
      units: (N, 17) float32, by how much each action unit changes, mean of both halves of the face;
        1 is the full unit. In the order of `portrait.UNITS`, the FACS numbers.
      pose: (N, 6) float32, by how much the pose changes. In the order of `POSE`; `portrait.Pose`
        says what is measured in what.
      clean: (N, 4, H, W, 3) uint16, the images of `KNOWN`, read from the disk where they are used.
    """

    frames: np.ndarray
    units: np.ndarray
    pose: np.ndarray
    clean: np.ndarray

    def image(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """One of `KNOWN` of some pairs: (n, H, W, 3) float32 in [−1, 1]."""
        return self.clean[rows, KNOWN.index(name)].astype(np.float32) * (2 / WHITE) - 1


def held_out_pairs(
    cache: str,
    *,
    pairs: int = 256,
    size: int,
    delta: tuple[int, int] = DEFAULT_DELTA,
    seed: int = 0,
    speech: float = 0.5,
    frames: int = 24,
    progress: Progress | None = None,
) -> Truth:
    """One pair of each of so many people, who do what those of `macro_source` do.

    The people come from a stream of random numbers of their own. So none of them is in a macro or
    micro dataset, whatever the seeds. With another size, the same people do the same.

    Args:
      cache: folder for the drawn images, made if need be.
      pairs: how many people.
      size: pixels along a side.
      delta: range of δ, both ends included, drawn as in training.
      seed: not negative; names the people and all they do.
      speech: share of clips in which the person speaks.
      frames: of the clip that the pair is drawn from.
      progress: called with (images drawn, images in all) while drawing.

    Raises:
      UserError: a number is out of range, or `cache` cannot be written.
    """
    films.check_at_least(
        pairs=(pairs, 1), frames=(frames, 2), size=(size, 16), seed=(seed, 0), speech=(speech, 0)
    )
    names, scripts = tuple(EMOTIONS), []
    for index in range(pairs):
        rng = films.stream(films.HELD_OUT, index, seed)
        clip = macro_script(rng, names[index % len(names)], frames, speech)
        scripts.append(_of_pair(clip, *future_pair(frames, rng, delta=delta)))

    parameters = {"pairs": pairs, "frames": frames, "seed": seed, "speech": float(speech)}
    parameters["delta"] = list(delta)
    path = films.kept(
        cache, "truth", parameters, size, lambda file: _draw(file, scripts, size, progress)
    )
    clean, noise = np.load(path, mmap_mode="r"), films.sensor("truth", seed)
    seen = [films.photographed(images[[0, 3]] / np.float32(WHITE), noise) for images in clean]
    units = [(pair.units[3] - pair.units[0]).mean(-1) for pair in scripts]
    pose = [[leaf[3] - leaf[0] for leaf in pair.pose] for pair in scripts]
    return Truth(np.stack(seen), np.float32(units), np.float32(pose), clean)


def _of_pair(clip: Script, t: int, future: int) -> Script:
    """The four images of `KNOWN`, as frames of one script."""
    head, face, light = [t, future, t, future], [t, t, future, future], [t, t, t, future]
    return Script(
        clip.identity,
        clip.units[face],
        Pose(*(leaf[head] for leaf in clip.pose)),
        Light(*(leaf[light] for leaf in clip.light)),
    )


def _draw(file, scripts: list[Script], size: int, progress: Progress | None) -> None:
    images = array_to_fill(file, np.uint16, (len(scripts), len(KNOWN), size, size, 3))
    flat, done = images.reshape(-1, size, size, 3), 0
    for drawn in films.drawings(scripts, size, progress):
        flat[done : done + len(drawn)] = np.rint(WHITE * drawn)
        done += len(drawn)
    images.flush()


def floors(
    truth: Truth,
    norm: Norm = "l1",
    *,
    latent: Callable[[jax.Array], jax.Array] = lambda images: images,
    denoised: bool = True,
) -> dict[str, float]:
    """L_rec of predictions of I_{t+δ} that know a part of the change exactly.

      floors(truth, "l2", latent=functools.partial(images.shrink, times=2))

    What is to be predicted is the future frame as it was seen, with its noise. C_Δ is far too small
    to hold that noise, so the best prediction is the future frame without it: `both`. It is the
    bound whether DiT predicts `latent` or `change`, for DiT sees Z_t, and a change may take out the
    noise of Z_t too. That is worth something even if nothing is known of the motion: `still`. So
    `copy` − `still` is the gain of taking out noise, and `still` − `head` and `still` − `face` are
    the gains of knowing the head and the face. In pixels, shrunk or not, all this is exact. In
    latents of an autoencoder it is nearly so, because what noise does to them is not symmetric.

    Args:
      norm: of L_rec.
      latent: from images (n, H, W, 3) in [−1, 1] to Z.
      denoised: False gives what is left if a network adds the exact change of Z to a Z_t that it
        leaves as noisy as it is. Then `still` is `copy`, and all differences are motion. A network
        that has learned the motion but not to take out noise ends at this `both`; it is no bound.

    Returns:
      Means over all pairs: `copy`, the noisy I_t as prediction; `still`, the clean one; and `head`,
      `face`, `both`, see `KNOWN`.
    """
    sums = dict.fromkeys(("copy", *KNOWN), 0.0)
    for index in range(0, len(truth.frames), films.BATCH):
        some = slice(index, index + films.BATCH)
        frame, future = (latent(to_float(truth.frames[some, moment])) for moment in (0, 1))
        clean = {name: latent(jnp.asarray(truth.image(name, some))) for name in KNOWN}
        kept_noise = 0.0 if denoised else frame - clean["still"]
        predictions = {name: image + kept_noise for name, image in clean.items()}
        for name, prediction in {"copy": frame, **predictions}.items():
            sums[name] += len(frame) * float(reconstruction_loss(prediction, future, norm))
    return {name: total / len(truth.frames) for name, total in sums.items()}
