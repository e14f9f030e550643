"""Faults, done to the commands on purpose: signals, odd input, damaged files.

  python tests/faults                          all of them
  python tests/faults --quick                  a few of each kind
  python tests/faults --seed=3 --only=frames   some, with other random numbers

Prints each case that is not right with the line that repeats it, and a table by group. Exit code 1
if something is short or bad.
"""

import argparse
import collections
import json
import pathlib
import random
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1])]


def main() -> int:
    import inputs
    import kills
    import small
    import storage
    from verdicts import BAD, RIGHT, SHORT, Verdict

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--quick", action="store_true", help="a few of each kind")
    p.add_argument("--seed", type=int, default=0, help="of all random choices (0)")
    help = "cases whose group/name begins so; may be given several times"
    p.add_argument("--only", action="append", metavar="GROUP/NAME", help=help)
    p.add_argument("--minutes", type=float, help="no case begins later than this")
    p.add_argument("--json", type=pathlib.Path, help="file for the verdicts")
    p.add_argument("--place", type=pathlib.Path, help="keep the shared runs there")
    f = p.parse_args()

    end = time.monotonic() + 60 * f.minutes if f.minutes else float("inf")
    counts = collections.defaultdict(collections.Counter)
    told = []
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        small.begin(f.place or pathlib.Path(scratch) / "shared")
        chosen = [
            case
            for case in [*inputs.cases(), *storage.cases(), *kills.cases()]
            if case.id.startswith(tuple(f.only or [""])) and (case.quick or not f.quick)
        ]
        for number, case in enumerate(chosen):
            if time.monotonic() > end:
                print(f"out of time: {len(chosen) - number} of {len(chosen)} cases not tried")
                break
            place = pathlib.Path(scratch) / f"case-{number}" / "in"
            place.mkdir(parents=True)
            began = time.monotonic()
            try:
                found = case.run(random.Random(f"{f.seed}/{case.id}"), place)
            except Exception:  # of the harness itself, or of what it asked the library
                found = Verdict(SHORT, traceback.format_exc().splitlines()[-1])
            for verdict in found if isinstance(found, list) else [found]:
                counts[case.group][verdict.kind] += 1
                seconds = round(time.monotonic() - began, 1)
                told.append(
                    {"case": case.id, "verdict": verdict.kind, "why": verdict.why, "s": seconds}
                )
                if verdict.kind != RIGHT:
                    print(f"{verdict.kind:5} {case.id}: {verdict.why}")
                    print(f"      python tests/faults --seed={f.seed} --only={case.id!r}")
                sys.stdout.flush()

    print(f"{'group':12} {'tried':>5}   right · short · bad")
    total = sum(counts.values(), collections.Counter())
    for group, found in [*counts.items(), ("all", total)]:
        numbers = " · ".join(f"{found[kind]:5}" for kind in (RIGHT, SHORT, BAD))
        print(f"{group:12} {sum(found.values()):5}   {numbers}")
    if f.json:
        f.json.write_text(json.dumps({"seed": f.seed, "cases": told}, indent=1) + "\n")
    return 1 if total[SHORT] + total[BAD] else 0


if __name__ == "__main__":
    sys.exit(main())
