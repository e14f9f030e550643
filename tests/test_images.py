"""Moving by whole pixels, shrinking and enlarging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax.images import enlarge, random_affine, shrink, warp, whole_pixels


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, size=(8, 32, 32, 3)).astype(np.float32)


def test_whole_pixels_are_moved_and_never_averaged(images):
    keys = jax.random.split(jax.random.key(0), len(images))
    tau = whole_pixels(random_affine(keys, rotation=20, translation=0.2), 32)
    moved = np.asarray(warp(jnp.asarray(images), tau))
    assert not np.any(tau.angle)
    for image, found, flip, x, y in zip(images, moved, *tau[1:], strict=True):
        reflected = np.pad(image[:, :: int(flip)], ((16, 16), (16, 16), (0, 0)), "symmetric")
        # The flip comes first: a shift to the right in the source is one to the left after it.
        row, column = 16 + round(float(y) * 16), 16 + round(float(flip * x) * 16)
        expected = reflected[row : row + 32, column : column + 32]
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_shift_by_parts_of_pixels_averages(images):
    tau = random_affine(jax.random.split(jax.random.key(0), 8), rotation=0, translation=0.2)
    assert warp(jnp.asarray(images), tau).std() < 0.9 * images.std()
    assert warp(jnp.asarray(images), whole_pixels(tau, 32)).std() > 0.97 * images.std()


def test_shrinking_takes_means_and_enlarging_is_its_inverse(images):
    small = shrink(jnp.asarray(images), 4)
    assert small.shape == (8, 8, 8, 3)
    np.testing.assert_allclose(small[3, 1, 2], images[3, 4:8, 8:12].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(shrink(enlarge(small, 4), 4), small, rtol=1e-5)
    assert shrink(images, 1) is images
