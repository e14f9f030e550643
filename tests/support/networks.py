"""The smallest networks, for tests that compile them and do not ask what they can learn."""

from ma2mi_jax.models.architecture import Architecture

SMALLEST = Architecture(
    image_size=96,
    width=4,
    depth=1,
    dit_width=16,
    heads=2,
    pixel_patch=16,
    space="pixel",
    blocks=(1, 1),
)
