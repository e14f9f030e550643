"""The packages of the wheel; everything else stands in pyproject.toml.

The scripts lie beside the package in a clone and inside it in a wheel. The table `packages.find`
of pyproject.toml cannot express that.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ma2mi_jax*"]), "ma2mi_jax.experiments"],
    package_dir={"ma2mi_jax.experiments": "experiments"},
)
