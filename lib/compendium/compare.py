"""Compare the figures' numbers with what is committed: identical, within tolerance, or drift, per file.

    python -m compendium.compare                # one line a file that differs, and a summary
    python -m compendium.compare --scorecard    # the claims first
    python -m compendium.compare --strict       # list every file; exit 1 if any table drifts

Tables (CSV) and records (JSON) are compared number by number; images only for equal bytes, since another machine's
fonts or matplotlib change them without changing a result.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from compendium import report
from compendium.paths import FIGURES, ROOT, relative

IDENTICAL, TOLERATED, DRIFT, NEW, GONE = "identical", "within tolerance", "drift", "new", "missing"
BAD = {DRIFT, GONE}
IMAGES = (".png", ".svg", ".pdf", ".jpg")


def committed(path: str) -> bytes | None:
    """The file as of the last commit; None when it is not in it."""
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def flatten(content: bytes, suffix: str) -> list:
    """All cells of a CSV, or all leaves of a JSON file, in order."""
    if suffix == ".csv":
        # Only an empty cell is a missing one: the texts "None" and "NA" are two.
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])
        return [*table.columns, *table.to_numpy(object).ravel()]

    def leaves(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                yield from leaves(item)
        elif isinstance(value, list):
            yield f"{len(value)} items"  # else the same numbers in lists of other lengths would pass
            for item in value:
                yield from leaves(item)
        else:
            yield value

    return list(leaves(json.loads(content)))


def judge(old: bytes, new: bytes, suffix: str, rtol: float, atol: float) -> tuple[str, str]:
    """Verdict on one file and a remark; numbers a, b agree when |a - b| <= atol + rtol max(|a|, |b|)."""
    if old == new:
        return IDENTICAL, ""
    if suffix in IMAGES and new:
        return TOLERATED, "image bytes differ; compare its table"
    if suffix not in (".csv", ".json"):
        return DRIFT, "bytes differ" if new else "it is empty"
    try:
        before, after = flatten(old, suffix), flatten(new, suffix)
    except ValueError as error:  # of pandas' and json's parsers: a file cut off, or of another encoding
        return DRIFT, f"cannot be read: {str(error).splitlines()[0]}"
    if len(before) != len(after):
        return DRIFT, f"{len(before)} values became {len(after)}"
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        number = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in (a, b))
        if number:
            worst = max(worst, _off(a, b, rtol, atol))
        elif a != b or isinstance(a, bool) != isinstance(b, bool):
            return DRIFT, f"{a!r} became {b!r}"
    return (TOLERATED if worst <= 1 else DRIFT), f"largest difference {worst:.2g} x tolerance"


def _off(a: float, b: float, rtol: float, atol: float) -> float:
    """How far two numbers are apart, in units of the tolerance."""
    if a == b or (a != a and b != b):  # nan is not itself
        return 0.0
    try:
        a, b = float(a), float(b)
    except OverflowError:  # an integer beyond all floats
        return np.inf
    if not (np.isfinite(a) and np.isfinite(b)):
        return np.inf
    allowed = atol + rtol * max(abs(a), abs(b))
    return abs(a - b) / allowed if allowed else np.inf


def compare(rtol: float, atol: float) -> pd.DataFrame:
    """One row per file under figures/, now or in the last commit: file, verdict, remark."""
    done = subprocess.run(["git", "ls-files", relative(FIGURES)], cwd=ROOT, capture_output=True, text=True)
    listed = done.stdout.splitlines()
    present = [relative(p) for p in FIGURES.rglob("*") if p.is_file() and "/." not in relative(p)]
    rows = []
    for path in sorted({*listed, *present}):
        old = committed(path)
        here = ROOT / path
        if not here.exists():
            rows.append((path, GONE, "committed, but not there now"))
        elif old is None:
            rows.append((path, NEW, "not committed"))
        else:
            rows.append((path, *judge(old, here.read_bytes(), Path(path).suffix, rtol, atol)))
    return pd.DataFrame(rows, columns=["file", "verdict", "remark"])


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.compare", description=__doc__.split("\n")[0])
    parser.add_argument("--rtol", type=float, default=0.02, help="relative tolerance (default 0.02)")
    parser.add_argument("--atol", type=float, default=0.001, help="absolute tolerance (default 0.001)")
    parser.add_argument("--strict", action="store_true", help="list every file and exit 1 on drift")
    parser.add_argument("--scorecard", action="store_true", help="print the claims first")
    given = parser.parse_args(argv)
    if given.scorecard:
        for claim in report.collect().itertuples():
            paper = f"paper: {claim.paper}; " if claim.paper else ""
            print(f"{claim.verdict:13} {claim.statement}  ({paper}here: {claim.value:.3g}, {claim.n} {claim.unit})")
    table = compare(given.rtol, given.atol)
    for row in table.itertuples():
        if given.strict or row.verdict != IDENTICAL:
            print(f"{row.verdict:17} {row.file}  {row.remark}")
    print("figures against the last commit: " + ", ".join(f"{n} {v}" for v, n in table.verdict.value_counts().items()))
    if given.strict and table.verdict.isin(BAD).any():
        sys.exit(1)


if __name__ == "__main__":
    main()
