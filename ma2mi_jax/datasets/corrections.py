"""What is known to be wrong in the annotation sheets.

A correction is found by subject and file name, because copies of a sheet differ in the order of
their rows. It is applied only where the sheet says what it names as wrong. So a copy that its
authors have mended stays as it is.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Correction:
    """One wrong cell.

    Attributes:
      column: heading of the cell, as `sheets.read` spells it.
      wrong: what the sheet says there.
      right: what is read in its place.
      reason: for people.
    """

    column: str
    wrong: str
    right: str
    reason: str


CORRECTIONS = {
    # CASME II
    ("sub04", "EP12_01f"): Correction(
        "apexframe", "/", "279", "the sheet gives no apex; 279 is commonly used"
    ),
    # SAMM
    ("028", "028_4_1"): Correction(
        "apexframe", "1143", "1105", "1143 is after the offset; meb has 1105, by optical flow"
    ),
    ("032", "032_3_1"): Correction(
        "apexframe", "1930", "4945", "1930 is before the onset; meb has 4945, by optical flow"
    ),
}
