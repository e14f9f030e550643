"""Each loss against a plain NumPy loop written from the paper's equation, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax import losses
from ma2mi_jax.images import Affine, inside, random_affine, sources, warp


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def maps(seed, batch=3, side=4, features=6):
    return np.random.default_rng(seed).normal(size=(batch, side, side, features))


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def l1_by_hand(f):
    places = f.reshape(-1, f.shape[-1])
    n = len(places)
    return sum(cosine(places[i], places[j]) for i in range(n) for j in range(n) if j != i) / (
        n * (n - 1)
    )


def l2_by_hand(f1, f2):
    u, v = f1.reshape(-1, f1.shape[-1]), f2.reshape(-1, f2.shape[-1])
    n, others, best = len(u), 0.0, 0.0
    for i in range(n):
        s = [cosine(u[i], v[j]) for j in range(n)]
        star = int(np.argmax(s))
        others += sum(s[j] for j in range(n) if j != star)
        best += max(s)
    return others / (n * (n - 1)) - best / n


def bilinear_by_hand(image, x, y):
    """The value of one (S, S, D) image at the plane's (x, y); reflection continues the image."""
    size = len(image)
    fold = lambda p: next(  # noqa: E731
        q for q in [np.abs((p + 0.5) % (2 * size))] for q in [min(q, 2 * size - q) - 0.5]
    )
    column, row = (np.clip(fold((p + 1) * size / 2 - 0.5), 0, size - 1) for p in (x, y))
    value = np.zeros(image.shape[-1])
    for r in range(size):
        for c in range(size):
            value += max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c)) * image[r, c]
    return value


def l3_by_hand(of_warped, features, angle, flip, shift, scale):
    size, total, count = len(features), 0.0, 0
    for r in range(size):
        for c in range(size):
            px, py = (c + 0.5) * 2 / size - 1, (r + 0.5) * 2 / size - 1
            px *= flip
            x = np.cos(angle) * px - np.sin(angle) * py + shift[0]
            y = np.sin(angle) * px + np.cos(angle) * py + shift[1]
            if abs(x) > 1 or abs(y) > 1:
                continue
            a, b = of_warped[r, c], bilinear_by_hand(features, x, y)
            if scale == "unit":
                a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
            total, count = total + np.linalg.norm(a - b), count + 1
    return total / count


def test_l1_is_equation_2():
    f = maps(0)
    expected = np.mean([l1_by_hand(x) for x in f])
    np.testing.assert_allclose(jax.jit(losses.l1)(f), expected, atol=1e-6)


def test_l2_is_equation_3():
    f1, f2 = maps(0), maps(1)
    expected = np.mean([l2_by_hand(a, b) for a, b in zip(f1, f2, strict=True)])
    np.testing.assert_allclose(jax.jit(losses.l2)(f1, f2), expected, atol=1e-6)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_l3_is_equation_5(scale):
    f, of_warped = maps(0, side=5), maps(1, side=5)
    tau = Affine(
        *(
            np.array(v)
            for v in ([0.3, -0.2, 0.0], [1.0, -1.0, -1.0], [0.15, -0.1, 0.0], [-0.2, 0.05, 0.4])
        )
    )
    expected = np.mean(
        [
            l3_by_hand(a, b, tau.angle[i], tau.flip[i], (tau.shift_x[i], tau.shift_y[i]), scale)
            for i, (a, b) in enumerate(zip(of_warped, f, strict=True))
        ]
    )
    np.testing.assert_allclose(losses.l3(of_warped, f, tau, scale), expected, atol=1e-6)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_l3_is_zero_for_an_encoder_that_commutes_with_tau(scale):
    images = maps(0, batch=8, side=9, features=3)
    mix = np.random.default_rng(1).normal(size=(3, 5))
    tau = random_affine(jax.random.split(jax.random.key(0), 8), rotation=20, translation=0.1)
    encoder = lambda x: x @ mix  # a 1x1 convolution acts on each place alone  # noqa: E731
    assert losses.l3(encoder(warp(images, tau)), encoder(images), tau, scale) < 1e-12
    other = random_affine(jax.random.split(jax.random.key(1), 8), rotation=20, translation=0.1)
    assert losses.l3(encoder(warp(images, tau)), encoder(images), other, scale) > 0.1


def test_l_pos_has_finite_gradients_where_features_are_dead_or_equal():
    tau = random_affine(jax.random.split(jax.random.key(0), 2), rotation=20, translation=0.1)
    for f in (np.zeros((2, 3, 3, 4)), np.ones((2, 3, 3, 4))):
        grads = jax.grad(lambda a, b: sum(losses.position_losses(a, b, tau).values()), (0, 1))(f, f)
        assert all(np.isfinite(g).all() for g in grads)


def test_other_face_exchanges_neighbours():
    f = np.arange(6.0).reshape(6, 1, 1, 1)
    np.testing.assert_array_equal(losses.other_face(jnp.asarray(f)).ravel(), [1, 0, 3, 2, 5, 4])


def test_warp_moves_a_known_pixel():
    image = np.zeros((1, 8, 8, 1))
    image[0, 2, 5] = 1
    still = Affine(*(np.array([v]) for v in (0.0, 1.0, 0.0, 0.0)))
    np.testing.assert_allclose(warp(image, still), image, atol=1e-12)
    flipped = warp(image, still._replace(flip=np.array([-1.0])))
    assert flipped[0, 2, 2, 0] == pytest.approx(1)
    left = warp(
        image, still._replace(shift_x=np.array([2 / 8]))
    )  # one pixel: reads from the right, so moves to the left
    assert left[0, 2, 4, 0] == pytest.approx(1)
    quarter = warp(image, still._replace(angle=np.array([np.pi / 2])))
    assert quarter.sum() == pytest.approx(1)
    assert quarter[0, 2, 2, 0] == pytest.approx(1)


def test_inside_marks_exactly_the_places_read_from_the_image():
    tau = random_affine(jax.random.split(jax.random.key(3), 5), rotation=30, translation=0.4)
    x, y = sources(tau, 7)
    expected = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    np.testing.assert_array_equal(inside(tau, 7), expected)
    assert 0 < expected.mean() < 1


def test_random_affine_keeps_its_ranges_and_uses_them():
    tau = random_affine(jax.random.split(jax.random.key(0), 4000), rotation=20, translation=0.1)
    assert np.abs(tau.angle).max() <= np.deg2rad(20)
    assert np.abs(tau.angle).max() > np.deg2rad(19)
    for shift in (tau.shift_x, tau.shift_y):
        assert np.abs(shift).max() <= 0.2  # a tenth of the side, in units of half an image
        assert np.abs(shift).max() > 0.19
    assert set(np.unique(tau.flip)) == {-1.0, 1.0}
    assert set(
        np.unique(
            random_affine(
                jax.random.split(jax.random.key(0), 99), rotation=1, translation=0, flip=False
            ).flip
        )
    ) == {1.0}
