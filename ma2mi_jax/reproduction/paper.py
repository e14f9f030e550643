"""The numbers that the paper reports: accuracy (%) and UF1 of every row of its tables.

None: the paper has no such number, or it cannot be read in our copy.
"""

DATASETS = {"casme2": "CASME II", "samm": "SAMM", "mmew": "MMEW"}

# How many clips are behind a percentage. The paper does not say it: these are the denominators
# with which its accuracies are whole numbers of clips.
N = {"casme2": 249, "samm": 136, "mmew": 234}

Score = tuple[float | None, float | None]
Rows = dict[str, dict[str, Score]]  # row -> dataset -> score


def _row(casme2: Score, samm: Score, mmew: float | None) -> dict[str, Score]:
    return {"casme2": casme2, "samm": samm, "mmew": (mmew, None)}


_NONE = _row((83.94, 0.8073), (77.21, 0.6740), 68.80)
_MA2MI = _row((89.16, 0.8882), (83.82, 0.7893), 75.21)

# Tables 1-4: the ablations. The names of the rows are those of `plans.py`.
ABLATIONS: dict[int, Rows] = {
    1: {
        "none": _NONE,
        "maer": _row((83.53, 0.8166), (78.68, 0.7214), 72.22),
        "pixel": _row((None, 0.8732), (None, 0.7481), 74.36),
        "latent": _MA2MI,
    },
    2: {
        "kept-position": _row((83.94, 0.8073), (80.88, 0.7304), 72.65),
        "kept-action": _row((85.54, 0.7941), (80.88, 0.7637), 73.08),
        "kept-both": _row((None, 0.8795), (81.62, 0.7384), 73.93),
        "dropped-position": _row((84.34, 0.8311), (81.62, 0.7411), 73.93),
        "dropped-action": _row((87.95, 0.8486), (82.35, 0.7640), 74.78),
        "dropped-both": _MA2MI,
    },
    3: {
        "none": _NONE,
        "afew": _row((85.14, 0.8362), (80.15, 0.7146), 72.22),
        "ferv39k": _row((None, None), (81.62, None), None),
        "dfew": _MA2MI,
    },
    4: {
        "no-position": _row((84.74, 0.8372), (77.94, 0.7279), 70.94),
        "no-lpos": _row((88.76, 0.8795), (81.62, 0.7549), 74.35),
        "with-lpos": _MA2MI,
    },
}

COMPARED = {5: ("casme2", "samm"), 6: ("mmew",)}  # Tables 5 and 6, and their datasets

# Other people's methods there; the last row is the paper's own.
OTHERS: dict[str, dict[str, Score]] = {
    "casme2": {
        "DSSN": (71.19, 0.7297),
        "TSCNN": (80.97, 0.8070),
        "Dynamic": (72.61, 0.6700),
        "Graph-TCN": (73.98, 0.7246),
        "SMA-STN": (82.59, 0.7946),
        "AU-GCN": (74.27, 0.7047),
        "GEME": (75.20, 0.7354),
        "MERSiamC3D": (81.89, 0.8300),
        "MMNet": (88.35, 0.8676),
        "MA2MI": _MA2MI["casme2"],
    },
    "samm": {
        "DSSN": (57.35, 0.4644),
        "Graph-TCN": (75.00, 0.6985),
        "SMA-STN": (77.20, 0.7033),
        "AU-GCN": (74.26, 0.7045),
        "GEME": (55.38, 0.4538),
        "MERSiamC3D": (68.75, 0.6400),
        "MMNet": (80.14, 0.7291),
        "MA2MI": _MA2MI["samm"],
    },
    "mmew": {
        "LBP-TOP": (38.90, None),
        "KGSL": (56.90, None),
        "MDMO": (65.70, None),
        "TLCNN": (69.40, None),
        "Sparse Transformer": (70.59, None),
        "LD-FMERN": (71.70, None),
        "MA2MI": _MA2MI["mmew"],
    },
}


def methods(number: int) -> Rows:
    """Other people's methods in Table 5 or 6; there are none in another table."""
    found: Rows = {}
    for dataset in COMPARED.get(number, ()):
        for name, score in OTHERS[dataset].items():
            if name != "MA2MI":
                found.setdefault(name, {})[dataset] = score
    return found
