"""A drawn face: from who it is, what its muscles do, how the head is held and how it is lit, to an
image.

`render` is one pure function of these four. Everything is a smooth formula of the place on the
face; nothing is made of pixels beforehand. So a picture can have any size, and a shift by a
hundredth of a pixel changes it by as much as it should.

The drawing follows the anatomy:

    picture -(pose)-> head -(muscles)-> skin

Every pixel is taken back to its place on the head, and from there to its place on the skin at rest
(`_places`). What belongs to the skin (relief, brows, lips, freckles, folds) is drawn where the skin
came from, so it moves with the muscles that pull it (`PULLS`). Eyeballs and hair are drawn on the
head, which they do not leave. Eyelids and lips open by formulas of their own. Light falls on a
relief, and wrinkles are furrows in that relief (`_relief`): the light decides how dark they are.
The picture is a pile of `Layer`s.

Coordinates: x goes to the viewer's right, y goes down. The frame is [-1, 1] x [-1, 1] of an
upright, centred head. Both halves of a face are the same drawing: most formulas see |x|. But the
intensity of an action unit may differ between the halves.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray | float

ACTION_UNITS = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
    45: "blink",
}
UNITS = tuple(ACTION_UNITS)


def activation(intensities: dict[int, float | tuple[float, float]]) -> np.ndarray:
    """From intensities in [0, 1] by FACS number, e.g. `{6: .3, 12: (.5, .2)}`, to an array.

    Returns:
      float32 (17, 2). Rows are in the order of `UNITS`; columns are the left and the right half of
      the picture. A single number moves both halves.
    """
    rows = np.zeros((len(UNITS), 2), np.float32)
    for unit, intensity in intensities.items():
        rows[UNITS.index(unit)] = intensity
    return rows


# ----- who, how, where ----------------------------------------------------------------------------


class Identity(NamedTuple):
    """What stays the same in a person.

    Lengths are in face coordinates. Colours are RGB in [0, 1], strengths are in [0, 1].
    """

    face_width: Array  # half the width at the cheekbones
    chin: Array  # its y
    jaw: Array  # exponent of the lower outline: 2 oval, 3 square
    eye_spread: Array  # x of an eye's centre
    eye_y: Array
    eye_width: Array  # half the width of the lid opening
    eye_opening: Array  # height of the lid opening above its axis
    eye_tilt: Array  # > 0: outer corner higher
    brow_gap: Array  # from eye to brow
    brow_length: Array
    brow_thickness: Array
    brow_arch: Array
    brow_tilt: Array
    nose_y: Array  # y of the nostrils
    nose_width: Array
    nose_height: Array  # how far it stands out
    mouth_y: Array
    mouth_width: Array
    mouth_curve: Array  # > 0: corners lower than the middle
    upper_lip: Array
    lower_lip: Array
    hairline: Array  # y at the middle of the forehead
    hair_curve: Array  # how much lower it is at the temples
    hair_parting: Array  # x of its highest point
    hair_volume: Array
    hair_length: Array  # y where it ends beside the face
    age: Array  # how deep the folds of the resting face are
    blush: Array
    freckled: Array
    beard: Array
    skin: Array  # (3,)
    hair: Array  # (3,)
    iris: Array  # (3,)
    lips: Array  # (3,)
    cloth: Array  # (3,)
    backdrop: Array  # (3,)
    freckles: Array  # (24, 3): x, y, radius
    waves: Array  # (8, 3): texture of the skin, wave vector and phase
    crooked: Array  # (3, 4): no face is symmetric; wave vector, phase, direction of a slight bend


class Pose(NamedTuple):
    """How the head is held.

    The shift (x, y) is in face coordinates: 2 is the whole frame. Roll is in radians, zoom is a
    logarithm, yaw and pitch are given as parallax.
    """

    x: Array = 0.0
    y: Array = 0.0
    roll: Array = 0.0
    zoom: Array = 0.0
    yaw: Array = 0.0
    pitch: Array = 0.0


class Light(NamedTuple):
    """A lamp.

    (x, y) is where it stands: (0, 0) is at the camera, y < 0 is above it. `contrast` says how much
    brighter it is than the room, `gain` is the exposure, `warmth` is that of its colour.
    """

    x: Array = -0.3
    y: Array = -0.4
    contrast: Array = 0.6
    gain: Array = 1.0
    warmth: Array = 0.0


UPRIGHT, LAMP = Pose(), Light()

RANGES = {
    "face_width": (0.66, 0.80),
    "chin": (0.84, 0.95),
    "jaw": (1.75, 2.6),
    "eye_spread": (0.29, 0.36),
    "eye_y": (-0.25, -0.16),
    "eye_width": (0.155, 0.195),
    "eye_opening": (0.068, 0.098),
    "eye_tilt": (-0.06, 0.16),
    "brow_gap": (0.19, 0.25),
    "brow_length": (0.19, 0.25),
    "brow_thickness": (0.016, 0.042),
    "brow_arch": (0.01, 0.07),
    "brow_tilt": (-0.16, 0.10),
    "nose_y": (0.13, 0.23),
    "nose_width": (0.10, 0.17),
    "nose_height": (0.75, 1.25),
    "mouth_y": (0.45, 0.53),
    "mouth_width": (0.25, 0.34),
    "mouth_curve": (-0.035, 0.010),
    "upper_lip": (0.030, 0.062),
    "lower_lip": (0.045, 0.085),
    "hairline": (-0.98, -0.74),
    "hair_curve": (0.15, 0.75),
    "hair_parting": (-0.35, 0.35),
    "hair_volume": (0.04, 0.20),
    "hair_length": (-0.35, 1.3),
    "age": (0.0, 0.6),
    "blush": (0.1, 0.7),
    "freckled": (-1.2, 0.9),  # below 0: none
    "beard": (-1.5, 0.8),  # below 0: none
}
SKINS = np.array(
    [
        [0.96, 0.81, 0.72],
        [0.91, 0.73, 0.60],
        [0.80, 0.60, 0.46],
        [0.62, 0.43, 0.31],
        [0.42, 0.28, 0.21],
    ]
)
HAIRS = np.array(
    [
        [0.10, 0.08, 0.08],
        [0.22, 0.14, 0.10],
        [0.38, 0.24, 0.14],
        [0.56, 0.30, 0.14],
        [0.78, 0.62, 0.36],
        [0.66, 0.65, 0.64],
    ]
)
IRISES = np.array(
    [
        [0.26, 0.15, 0.08],
        [0.42, 0.28, 0.12],
        [0.34, 0.42, 0.22],
        [0.28, 0.45, 0.62],
        [0.45, 0.52, 0.56],
    ]
)


def random_identity(rng: np.random.Generator) -> Identity:
    """One person, drawn with NumPy so that a seed names the same person under every jax."""
    shape = {name: rng.uniform(low, high) for name, (low, high) in RANGES.items()}
    tone = rng.uniform(0, len(SKINS) - 1)
    tan = tone > 2.5  # fair hair and eyes on dark skin are rare
    skin = _between(SKINS, tone) * (
        rng.uniform(1.0, 1.08) + rng.uniform(-0.025, 0.025) * np.array([1, 0, -1])
    )
    hair = _between(HAIRS, rng.uniform(0, 1.2 if tan else len(HAIRS) - 1)) * rng.uniform(0.85, 1.15)
    iris = _between(IRISES, rng.uniform(0, 1 if tan else len(IRISES) - 1))
    lips = skin * rng.uniform([0.82, 0.58, 0.60], [0.94, 0.74, 0.78])
    freckles = np.stack(
        [rng.normal(0, 0.32, 24), rng.normal(0.08, 0.10, 24), rng.uniform(0.009, 0.020, 24)], -1
    )
    length, angle = (
        2 * np.pi / np.geomspace(0.10, 0.8, 8),
        rng.uniform(0, np.pi) + 2.4 * np.arange(8),
    )  # golden angle: no weave
    waves = np.stack(
        [length * np.cos(angle), length * np.sin(angle), rng.uniform(0, 2 * np.pi, 8)], -1
    )
    crooked = np.concatenate(
        [rng.normal(0, 2.0, (3, 1)), rng.uniform(0, 6.3, (3, 1)), rng.normal(0, 0.006, (3, 2))], -1
    )
    cloth, backdrop = (
        rng.uniform(low, high) + rng.uniform(-0.08, 0.08, 3)
        for low, high in ((0.15, 0.7), (0.25, 0.85))
    )
    colours = {
        "skin": skin,
        "hair": hair,
        "iris": iris,
        "lips": lips,
        "cloth": cloth,
        "backdrop": backdrop,
    }
    return Identity(
        **jax.tree.map(
            np.float32, shape | colours | {"freckles": freckles, "waves": waves, "crooked": crooked}
        )
    )


def _between(palette: np.ndarray, at: float) -> np.ndarray:
    return np.stack([np.interp(at, np.arange(len(palette)), channel) for channel in palette.T])


# ----- what moves ---------------------------------------------------------------------------------


class Pull(NamedTuple):
    """Action unit `unit` moves the skin at a landmark by `by`.

    The motion fades to nothing at the distance `reach`. The other half is the mirror image.
    """

    unit: int
    landmark: str
    by: tuple[float, float]  # outwards, down
    reach: tuple[float, float]


PULLS = (
    Pull(1, "inner brow", (-0.01, -0.13), (0.30, 0.32)),
    Pull(2, "outer brow", (0.01, -0.13), (0.30, 0.32)),
    Pull(4, "inner brow", (-0.06, 0.09), (0.30, 0.28)),
    Pull(4, "outer brow", (-0.03, 0.04), (0.34, 0.28)),
    Pull(6, "cheek", (-0.01, -0.09), (0.36, 0.32)),
    Pull(6, "outer eye", (-0.035, 0.02), (0.22, 0.24)),
    Pull(7, "lower lid", (-0.01, -0.03), (0.26, 0.16)),
    Pull(9, "nose wing", (0.01, -0.055), (0.30, 0.26)),
    Pull(9, "inner brow", (-0.03, 0.05), (0.26, 0.26)),
    Pull(9, "upper lip", (0.00, -0.035), (0.26, 0.18)),
    Pull(10, "upper lip", (0.015, -0.060), (0.26, 0.17)),
    Pull(10, "nose wing", (0.02, -0.02), (0.24, 0.24)),
    Pull(12, "mouth corner", (0.09, -0.10), (0.38, 0.38)),
    Pull(12, "cheek", (0.02, -0.04), (0.36, 0.34)),
    Pull(14, "mouth corner", (0.05, -0.005), (0.22, 0.20)),
    Pull(14, "beside the mouth", (-0.05, 0.0), (0.22, 0.24)),
    Pull(15, "mouth corner", (0.01, 0.085), (0.30, 0.30)),
    Pull(17, "chin boss", (0.00, -0.05), (0.32, 0.20)),
    Pull(17, "lower lip", (0.00, -0.035), (0.30, 0.18)),
    Pull(20, "mouth corner", (0.09, 0.02), (0.36, 0.32)),
    Pull(20, "beside the mouth", (0.03, 0.03), (0.30, 0.40)),
    Pull(23, "mouth corner", (-0.06, 0.0), (0.28, 0.24)),
    Pull(26, "chin", (0.00, 0.09), (0.90, 0.42)),
)


def landmarks(who: Identity) -> dict[str, tuple[Array, Array]]:
    """Places of the right half of the resting face, where muscles take hold."""
    brow_y = who.eye_y - who.brow_gap
    return {
        "inner brow": (who.eye_spread - 0.6 * who.brow_length, brow_y),
        "outer brow": (who.eye_spread + 0.7 * who.brow_length, brow_y),
        "outer eye": (who.eye_spread + who.eye_width, who.eye_y),
        "lower lid": (who.eye_spread, who.eye_y + 0.08),
        "cheek": (who.eye_spread + 0.08, who.eye_y + 0.28),
        "nose wing": (who.nose_width, who.nose_y - 0.03),
        "upper lip": (0.45 * who.mouth_width, who.mouth_y - 0.07),
        "lower lip": (0.3 * who.mouth_width, who.mouth_y + 0.06),
        "mouth corner": (who.mouth_width, who.mouth_y),
        "beside the mouth": (who.mouth_width + 0.12, who.mouth_y + 0.02),
        "chin boss": (0.0, 0.5 * (who.mouth_y + who.chin) + 0.05),
        "chin": (0.0, who.chin - 0.05),
    }


def _places(who: Identity, units: Array, pose: Pose, size: int):
    """Where the pixels lie on the head, and on the skin at rest: ((x, y), (x, y)).

    Each of the four is an array (size, size).
    """
    centres = (jnp.arange(size) + 0.5) * (2 / size) - 1
    x, y = jnp.meshgrid(centres - pose.x, centres - pose.y)
    cos, sin, scale = jnp.cos(pose.roll), jnp.sin(pose.roll), jnp.exp(-pose.zoom)
    x, y = scale * (cos * x + sin * y), scale * (cos * y - sin * x)
    depth = _bump(x, y, (1.3, 1.5))  # a turning head shifts what stands out more than its rim
    x, y = x - pose.yaw * depth, y - pose.pitch * depth
    bends = [(jnp.cos(k * (x + y) + phase), dx, dy) for k, phase, dx, dy in who.crooked]
    x, y = x + sum(bend * dx for bend, dx, _ in bends), y + sum(bend * dy for bend, _, dy in bends)

    marks, right, down = landmarks(who), 0.0, 0.0
    for pull in PULLS:
        (at_x, at_y), (out, low), strength = (
            marks[pull.landmark],
            pull.by,
            units[UNITS.index(pull.unit)],
        )
        on_left, on_right = (
            strength[half] * _bump(x - side * at_x, y - at_y, pull.reach)
            for half, side in enumerate((-1, 1))
        )
        right += out * (on_right - on_left)
        down += low * (on_right + on_left)
    return (x, y), (x - right, y - down)


# ----- brushes ------------------------------------------------------------------------------------


def _bump(x, y, reach) -> Array:
    """1 at the origin, smoothly 0 at the ellipse `reach` and beyond."""
    return jnp.maximum(0.0, 1 - (x / reach[0]) ** 2 - (y / reach[1]) ** 2) ** 3


def _ramp(value, start, stop) -> Array:
    """0 before `start`, 1 after `stop`, smooth between."""
    t = jnp.clip((value - start) / (stop - start), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _furrow(x, y, start, end, width) -> Array:
    """1 in the middle of the segment from `start` to `end`.

    It falls off over `width` to both sides, and towards the ends.
    """
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length2 = along_x**2 + along_y**2
    t = ((x - start[0]) * along_x + (y - start[1]) * along_y) / length2
    across2 = ((x - start[0]) * along_y - (y - start[1]) * along_x) ** 2 / length2
    return (
        jnp.maximum(0.0, 1 - (2 * t - 1) ** 2)
        * jnp.maximum(0.0, 1 - across2 / (2 * width) ** 2) ** 3
    )


class Layer(NamedTuple):
    """Paint of one colour.

    `tint` (3,) is the colour. `light` says how light it is and may exceed 1. `cover`, in [0, 1],
    says how much it hides. These two are planes or numbers.
    """

    tint: Array
    light: Array
    cover: Array


# ----- the drawing --------------------------------------------------------------------------------


def _layers(places, who: Identity, units: Array, light: Light, pixel: Array) -> list[Layer]:
    """The whole picture from back to front; `pixel` is the size of a pixel on the head."""
    (head_x, head_y), (x, y) = places
    soft = 0.75 * pixel  # half the width of an edge
    right = _ramp(head_x, -0.12, 0.12)  # which half of the face this is
    act = {
        unit: left_half + (right_half - left_half) * right
        for unit, (left_half, right_half) in zip(UNITS, units, strict=True)
    }
    edge = _outline(x, y, who)
    inside = _ramp(edge, -soft, soft)
    behind, fringe = _hair(head_x, head_y, who, soft)
    return [
        Layer(who.backdrop, 1 - 0.12 * head_y, 1.0),
        behind,
        Layer(
            who.skin, 0.62, _ramp(0.42 - jnp.abs(head_x), -soft, soft) * _ramp(head_y, 0.3, 0.4)
        ),  # the neck
        Layer(
            who.cloth,
            1.0,
            _ramp(head_y - 1.0 + 0.10 * jnp.exp(-((head_x / 0.5) ** 2)), -soft, soft),
        ),
        _ears(head_x, head_y, who),
        *_skin(x, y, inside, who, pixel),
        *_nose(x, y, who),
        *_mouth(x, y, who, act, soft),
        Layer(
            who.skin * jnp.array([0.40, 0.18, 0.14]),
            1.0,
            inside * _shadow(x, y, edge, who, act, light),
        ),  # shadows in skin are red
        *_eyes(head_x, head_y, who, act, light, soft),
        _brows(x, y, who, soft),
        fringe,
    ]


def _blend(layers: list[Layer], light: Light) -> Array:
    colour = jnp.zeros((3, 1, 1))
    for layer in layers:
        colour += (jnp.reshape(layer.tint, (3, 1, 1)) * layer.light - colour) * layer.cover
    warm = jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1)
    return jnp.clip(jnp.moveaxis(light.gain * (1 + light.warmth * warm) * colour, 0, -1), 0.0, 1.0)


def _relief(x, y, who: Identity, act: dict[int, Array]) -> Array:
    """Height of the skin towards the viewer.

    Furrows get deeper with the units that fold the skin there.
    """
    mark = landmarks(who)
    a = jnp.sqrt(x * x + 1e-4)  # |x| without its kink
    wing_x, wing_y = mark["nose wing"]
    corner_x, corner_y = mark["mouth corner"]
    eye_x, eye_y = mark["outer eye"]
    cheek_x, cheek_y = mark["cheek"]
    brow_y, chin_y = mark["inner brow"][1], mark["chin boss"][1]

    height = -0.32 * (x / who.face_width) ** 2 - 0.20 * (y / who.chin) ** 2
    height -= 0.07 * _bump(a - who.eye_spread, y - who.eye_y + 0.02, (0.26, 0.20))
    height += 0.03 * _bump(a - who.eye_spread, y - brow_y, (0.32, 0.13))
    height += (0.045 + 0.05 * act[6] + 0.03 * act[12]) * _bump(
        a - cheek_x, y - cheek_y, (0.34, 0.28)
    )
    bridge = _ramp(y, who.eye_y - 0.22, who.nose_y) * _ramp(who.nose_y + 0.06 - y, 0.0, 0.12)
    height += who.nose_height * 0.16 * bridge * jnp.exp(-((x / (0.10 + 0.05 * bridge)) ** 2))
    height += who.nose_height * 0.05 * _bump(x, y - who.nose_y + 0.06, (0.15, 0.15))
    height += 0.05 * _bump(a - 0.75 * wing_x, y - who.nose_y + 0.03, (0.09, 0.09))
    height -= 0.012 * _furrow(x, y, (0.0, who.nose_y + 0.04), (0.0, who.mouth_y - 0.06), 0.03)
    height += 0.035 * _bump(x, y - who.mouth_y, (1.2 * who.mouth_width, 0.17))
    height -= 0.035 * _bump(x, y - who.mouth_y - who.lower_lip - 0.07, (0.22, 0.08))
    height += (0.05 + 0.02 * act[17]) * _bump(x, y - chin_y - 0.08, (0.24, 0.20))

    def fold(depth, start, end, width):
        return -depth * _furrow(a, y, start, end, width)

    age = who.age
    smile = 0.010 * age + 0.030 * act[12] + 0.020 * act[9] + 0.022 * act[10] + 0.008 * act[6]
    height += fold(smile, (wing_x + 0.02, wing_y - 0.04), (corner_x + 0.11, corner_y + 0.02), 0.028)
    height += fold(
        0.006 * age + 0.022 * act[15],
        (corner_x, corner_y + 0.02),
        (corner_x + 0.05, corner_y + 0.2),
        0.020,
    )
    height += fold(
        0.006 * age + 0.012 * (act[6] + act[7]),
        (eye_x - 0.28, eye_y + 0.11),
        (eye_x, eye_y + 0.10),
        0.018,
    )
    height += fold(
        0.002 * age + 0.020 * act[4], (0.05, brow_y - 0.08), (0.06, brow_y + 0.11), 0.016
    )
    for rise in (-0.07, 0.0, 0.07):  # crow's feet
        height += fold(
            0.002 * age + 0.012 * act[6],
            (eye_x + 0.02, eye_y + 0.3 * rise),
            (eye_x + 0.17, eye_y + rise),
            0.012,
        )
    for drop in (-0.07, 0.0, 0.07):  # across the root of the nose
        height += fold(
            0.016 * act[9], (-0.06, eye_y + drop + 0.02), (0.14, eye_y + drop - 0.04), 0.014
        )
    height -= 0.03 * act[14] * _bump(a - corner_x - 0.055, y - corner_y, (0.055, 0.075))  # dimples
    raised = act[1] * _ramp(0.55 - a, 0.0, 0.4) + 0.8 * act[2] * _ramp(a, 0.15, 0.4)
    for above in (0.17, 0.25, 0.33):  # across the forehead
        line = _bump(y - brow_y + above + 0.10 * a * a, 0.0, (0.03, 1.0)) * _ramp(0.6 - a, 0.0, 0.3)
        height -= (0.002 * age + 0.014 * raised) * line
    weeping = jnp.cos(70 * x) * jnp.cos(60 * y) * _bump(x, y - chin_y - 0.04, (0.20, 0.17))
    return height + 0.004 * act[17] * weeping


def _skin(x, y, inside, who: Identity, pixel) -> list[Layer]:
    """Skin and what is in it, before any light falls on it."""
    a = jnp.abs(x)
    flushed = _bump(a - who.eye_spread - 0.08, y - 0.12, (0.30, 0.24)) + 0.35 * _bump(
        x, y - who.nose_y + 0.03, (0.15, 0.14)
    )
    resolved = jnp.exp(
        -0.22 * pixel**2 * (who.waves[:, 0] ** 2 + who.waves[:, 1] ** 2)
    )  # a pixel averages what it cannot hold
    grain = sum(
        weight * jnp.cos(kx * x + ky * y + phase)
        for weight, (kx, ky, phase) in zip(resolved, who.waves, strict=True)
    )
    spots = sum(
        _bump(x - at_x, y - at_y, (2 * radius, 2 * radius)) for at_x, at_y, radius in who.freckles
    )
    cheeks = _ramp(a + 0.5 * y, 0.42, 0.62) * _ramp(y, -0.05, 0.35)
    chin = _ramp(y, who.mouth_y + 0.06, who.mouth_y + 0.20)
    moustache = _bump(
        x, y - 0.5 * (who.nose_y + who.mouth_y) - 0.06, (who.mouth_width + 0.12, 0.16)
    )
    return [
        Layer(who.skin, 1.0, inside),
        Layer(who.skin * jnp.array([1.0, 0.78, 0.79]), 1.0, inside * who.blush * 0.6 * flushed),
        Layer(who.skin * 0.6, 1.0, inside * jnp.clip(0.10 + 0.022 * grain, 0.0, 1.0)),
        Layer(
            who.skin * jnp.array([0.75, 0.62, 0.52]),
            1.0,
            inside * jnp.maximum(who.freckled, 0.0) * jnp.minimum(spots, 1.0),
        ),
        Layer(
            who.hair,
            0.9,
            inside
            * jnp.maximum(who.beard, 0.0)
            * 0.75
            * jnp.minimum(1.0, cheeks + chin + moustache),
        ),
    ]


def _shadow(x, y, edge, who: Identity, act: dict[int, Array], light: Light) -> Array:
    """How much of the lamp's light is missing, 0 where the skin faces the lamp (Lambert)."""
    slope_x, slope_y = jax.grad(lambda x, y: _relief(x, y, who, act).sum(), (0, 1))(x, y)
    facing = (1 - light.x * slope_x - light.y * slope_y) * jax.lax.rsqrt(
        (1 + slope_x**2 + slope_y**2) * (1 + light.x**2 + light.y**2)
    )
    return 1 - (1 - light.contrast * (1 - jnp.maximum(facing, 0.0))) * (
        0.78 + 0.22 * _ramp(edge, 0.0, 0.16)
    )


def _brows(x, y, who: Identity, soft) -> Layer:
    u = (jnp.abs(x) - who.eye_spread - 0.01) / who.brow_length  # -1 at the nose, 1 at the temple
    spine = (
        who.eye_y
        - who.brow_gap
        + who.brow_arch * (u - 0.25) ** 2
        - who.brow_tilt * who.brow_length * u * 0.5
    )
    thickness = who.brow_thickness * (1 - 0.45 * u) * jnp.sqrt(jnp.maximum(1 - u**4, 1e-3))
    hairs = _ramp(thickness - jnp.abs(y - spine), -soft - 0.012, soft + 0.012) * _ramp(
        1 - jnp.abs(u), 0.0, 0.25
    )
    return Layer(who.hair, 0.75, 0.88 * hairs)


def _eyes(head_x, head_y, who: Identity, act: dict[int, Array], light: Light, soft) -> list[Layer]:
    """Lids open and close over an eyeball that stays with the head."""
    x, y = jnp.abs(head_x) - who.eye_spread, head_y - who.eye_y
    y += who.eye_tilt * x
    u = x / who.eye_width
    almond = 1 - jnp.abs(u) ** 2.2
    low = who.eye_opening * 0.62 * (1 - 0.55 * act[7] - 0.35 * act[6] - 0.10 * act[9]) * almond
    high = (
        -who.eye_opening
        * (1 + 0.55 * act[5] - 0.28 * act[7] - 0.15 * act[4] - 0.12 * act[6])
        * almond
    )
    high += (0.85 * low - high) * act[45]
    inside = _ramp(jnp.minimum(y - high, low - y), -soft, soft)
    shadow = 0.62 + 0.38 * _ramp(y - high, 0.0, 0.055)  # of the upper lid

    radius, size = jnp.sqrt(x**2 + (y + 0.012) ** 2 + 1e-6), 0.58 * who.eye_width
    ring = (
        0.75 + 0.9 * _ramp(radius, 0.3 * size, 0.8 * size) - 0.9 * _ramp(radius, 0.78 * size, size)
    )
    glint = _bump(
        x * jnp.sign(head_x) - 0.05 * light.x - 0.01, y + 0.012 - 0.06 * light.y, (0.045, 0.045)
    )

    def line(at, width):
        return _bump(y - at, 0.0, (2 * width, 1.0)) * _ramp(1.12 - jnp.abs(u), 0.0, 0.15)

    return [
        Layer(jnp.array([0.95, 0.93, 0.91]), (1 - 0.25 * u**2) * shadow, inside),
        Layer(who.iris, ring * shadow, inside * _ramp(size - radius, -soft, soft)),
        Layer(jnp.full(3, 0.04), 1.0, inside * _ramp(0.40 * size - radius, -soft, soft)),
        Layer(jnp.ones(3), 1.0, inside * 0.9 * glint),
        Layer(0.30 * who.hair + 0.03, 1.0, 0.85 * line(high, 0.016 + 0.3 * soft)),  # lashes
        Layer(who.skin * jnp.array([0.60, 0.48, 0.48]), 1.0, 0.45 * line(low, 0.011 + 0.3 * soft)),
        Layer(
            who.skin, 0.55, 0.45 * line(high - 0.045 - 0.02 * almond + 0.03 * act[45], 0.014)
        ),  # the fold of the lid
    ]


def _nose(x, y, who: Identity) -> list[Layer]:
    a = jnp.abs(x)
    hole = _bump(a - 0.48 * who.nose_width, y - who.nose_y - 0.015, (0.062, 0.038))
    wing = _furrow(
        a,
        y,
        (1.02 * who.nose_width, who.nose_y - 0.09),
        (0.92 * who.nose_width, who.nose_y + 0.035),
        0.016,
    )
    below = _bump(x, y - who.nose_y - 0.045, (who.nose_width, 0.045))
    dark = jnp.minimum(1.0, 0.9 * hole + 0.35 * wing + 0.25 * below)
    return [Layer(who.skin * jnp.array([0.42, 0.26, 0.24]), 1.0, dark)]


def _mouth(x, y, who: Identity, act: dict[int, Array], soft) -> list[Layer]:
    """Two lips on the skin, and what is seen between them."""
    u = x / who.mouth_width
    arc = jnp.maximum(1 - u * u, 0.0)
    line = who.mouth_y + who.mouth_curve * (1 - arc) + 0.010 * jnp.cos(6.0 * u) * arc
    above = line - (0.004 + 0.028 * act[25] + 0.016 * act[10] + 0.020 * act[26]) * arc
    round_arc = jnp.sqrt(arc + 1e-4)
    below = line + (0.004 + 0.045 * act[25]) * arc + 0.075 * act[26] * round_arc
    thin = 1 - 0.45 * act[23] - 0.15 * act[12]
    bow = (
        1
        - 0.30 * jnp.exp(-((u / 0.16) ** 2))
        + 0.12 * jnp.exp(-(((jnp.abs(u) - 0.28) / 0.16) ** 2))
    )
    top = above - who.upper_lip * thin * arc * bow
    bottom = below + who.lower_lip * (thin + 0.2 * act[17]) * round_arc
    ends = _ramp(1 - jnp.abs(u), -soft, 0.10)
    lips = ends * _ramp(jnp.minimum(y - top, bottom - y), -soft - 0.010, soft + 0.010)
    fullness = _bump(x, y - 0.5 * (below + bottom), (0.7 * who.mouth_width, 0.5 * who.lower_lip))
    tone = 0.86 + 0.14 * _ramp(y - line, -soft, soft) + 0.16 * fullness

    inside = ends * _ramp(jnp.minimum(y - above, below - y), -soft, soft)
    gap = below - above
    tongue = _bump(x, y - below - 0.01, (0.7 * who.mouth_width, 0.5 * gap + 0.01))
    teeth = _ramp(above + 0.045 * arc + 0.006 - y, -soft, soft) * _ramp(gap, 0.02, 0.05)
    return [
        Layer(who.lips, 1.06 * tone, 0.85 * lips),
        Layer(jnp.array([0.30, 0.08, 0.08]), 1.0, inside),
        Layer(jnp.array([0.70, 0.33, 0.33]), 1.0, inside * tongue),
        Layer(jnp.array([0.93, 0.91, 0.87]), 0.75 + 0.25 * arc, inside * teeth),
    ]


def _ears(x, y, who: Identity) -> Layer:
    ear = _bump(jnp.abs(x) - who.face_width, y + 0.08, (0.10, 0.26))
    return Layer(who.skin, 0.62 + 0.25 * _ramp(ear, 0.1, 0.9), _ramp(ear, 0.0, 0.15))


def _hair(x, y, who: Identity, soft) -> tuple[Layer, Layer]:
    """Hair behind the head and hair over the forehead."""
    along = (x - 0.5 * who.hair_parting) / (1.5 - y)
    strands = (
        1
        + 0.10 * jnp.cos(60 * along + 3 * jnp.cos(14 * along))
        + 0.25 * _bump(x + 0.2, y + 0.95, (0.6, 0.3))
    )
    around = _outline(
        x / (1 + who.hair_volume),
        (y + 0.1) / (1 + 0.5 * who.hair_volume) - 0.05,
        who._replace(chin=1.6),
    )
    mass = _ramp(around, -soft, soft + 0.02)
    line = who.hairline + who.hair_curve * (x - who.hair_parting) ** 2 - y
    on_top = _ramp(line, -soft - 0.03, soft + 0.03) * mass * _ramp(-0.1 - y, -0.1, 0.25)
    return (
        Layer(who.hair, 0.8 * strands, mass * _ramp(who.hair_length - y, -0.1, 0.1)),
        Layer(who.hair, strands * (0.85 + 0.3 * _ramp(line, 0.0, 0.2)), on_top),
    )


def _outline(x, y, who: Identity) -> Array:
    """Distance to the outline of the face, > 0 inside.

    It is exact on the outline, and nearly so close to it.
    """
    middle = -0.10
    tall = jnp.where(y > middle, who.chin - middle, 1.05)
    power = 2.0 + (who.jaw - 2.0) * _ramp(y, middle, 0.5)
    u, v = jnp.abs(x) / who.face_width + 1e-4, jnp.abs(y - middle) / tall + 1e-4
    return who.face_width * (1 - (u**power + v**power) ** (1 / power))


# ----- for others ---------------------------------------------------------------------------------


def render(
    identity: Identity, action_units: Array, pose: Pose, light: Light, size: int
) -> jax.Array:
    """Draws one face.

    Args:
      identity: who.
      action_units: (17, 2) intensities in [0, 1], see `activation`.
      pose: how the head is held.
      light: how it is lit.
      size: pixels along a side.

    Returns:
      (size, size, 3) float32 RGB in [0, 1].
    """
    alone = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32)[None], (identity, action_units, pose, light)
    )
    return render_frames(*alone, size)[0]


def render_frames(
    identity: Identity, action_units: Array, pose: Pose, light: Light, size: int
) -> jax.Array:
    """`render` over a leading axis of all arguments: (frames, size, size, 3) float32 in [0, 1].

    It is compiled in three steps. In a single step XLA on a CPU would compute the places again for
    every layer, and the layers again for every colour: fifteen times the work.
    """
    places = _all_places(identity, action_units, pose, size)
    pixel = 2 / size * jnp.exp(-jnp.asarray(pose.zoom))
    return _all_blended(_all_layers(places, identity, action_units, light, pixel), light)


_all_places = jax.jit(jax.vmap(_places, in_axes=(0, 0, 0, None)), static_argnums=3)
_all_layers = jax.jit(jax.vmap(_layers))
_all_blended = jax.jit(jax.vmap(_blend))


def action_unit_region(
    unit: int,
    identity: Identity,
    pose: Pose = UPRIGHT,
    light: Light = LAMP,
    *,
    size: int,
    threshold: float = 0.02,
):
    """Where action unit `unit` shows: ground truth for Grad-CAM, measured on the drawing.

    Args:
      unit: its FACS number.
      identity, pose, light: as for `render`.
      size: pixels along a side.
      threshold: change of a channel, in [0, 1], that counts.

    Returns:
      (size, size) bool: the places where any channel changes by more than `threshold` when the unit
      goes from 0 to 1.
    """
    stack = functools.partial(jax.tree.map, lambda leaf: np.stack([leaf, leaf]))
    units = np.stack([activation({}), activation({unit: 1.0})])
    rest, moved = np.asarray(render_frames(stack(identity), units, stack(pose), stack(light), size))
    return np.abs(moved - rest).max(-1) > threshold
