"""A process that keeps its memory is not given the same pages again and again."""

import resource
import subprocess
import sys

import pytest

from ma2mi_jax import memory

TOUCHED = """
import resource
from ma2mi_jax import memory

if {keep}:
    assert memory.keep()
for time in range(5):
    b"1" * (100_000_000 + time)  # given back at once
    if time == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_pages_stay_with_the_process():
    faults = {
        keep: int(subprocess.check_output([sys.executable, "-c", TOUCHED.format(keep=keep)]))
        for keep in (False, True)
    }
    pages = 4 * 100_000_000 // resource.getpagesize()
    assert faults[False] > 0.9 * pages
    assert faults[True] < 0.1 * pages


def test_other_systems_cannot_be_told(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep()
