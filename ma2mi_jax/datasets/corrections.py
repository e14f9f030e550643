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
      right: what is read in its place; None means that the frame is estimated.
      reason: for people.
    """

    column: str
    wrong: str
    right: str | None
    reason: str


CORRECTIONS = {
    # CASME II
    ("sub04", "EP12_01f"): Correction(
        "apexframe", "/", "279", "the sheet gives no apex; 279 is commonly used"
    ),
    # SAMM
    ("028", "028_4_1"): Correction(
        "apexframe", "1143", None, "one copy has the apex after the offset, 1134"
    ),
    ("032", "032_3_1"): Correction(
        "apexframe", "1930", None, "one copy has 1930 for a frame in the 4900s"
    ),
}
