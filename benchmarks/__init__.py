"""What times something: `python -m benchmarks`, from the root of a clone."""

import pathlib
import sys

# They speak to people as the scripts do, through experiments/cli.py.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "experiments"))
