"""What a notebook leaves behind: figures with their numbers, tables, metrics, claims; and where it all came from.

    report = Report(out)                      # out: the notebook's folder under figures/; None writes nothing
    report.figure(fig, "flips", frame)        # flips.png and flips.csv
    report.claim(id="...", statement="...", paper="...", measured=..., ci=(lo, hi), verdict=verdict(...))

Files come out byte for byte the same from the same numbers: no dates, no software versions, fixed resolution, numbers
cut to six digits. Provenance therefore never goes into them; it is printed, and kept beside the executed copy.
"""

import json
import math
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pandas as pd

from compendium.files import write
from compendium.paths import FIGURES, ROOT, relative

DPI = 120
HOLDS, DIRECTION, FAILS, UNTESTABLE = "holds", "holds in direction", "does not hold here", "not testable here"
VERDICTS = (HOLDS, DIRECTION, FAILS, UNTESTABLE)
COLUMNS = ["notebook", "id", "statement", "paper", "measured", "low", "high", "seeds", "verdict"]
FORMAT = "%.6g"


def style() -> None:
    """The look of every figure: colour-blind-safe palette, light axes, titles that state the message."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.95)
    plt.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": "medium",
            "legend.frameon": False,
            "svg.hashsalt": "compendium",
        }
    )


def rounded(value):
    """Numbers cut to six significant digits, anywhere inside dicts and lists; not-a-number becomes None."""
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if hasattr(value, "item"):
        return rounded(value.item())
    if isinstance(value, float):
        return float(FORMAT % value) if math.isfinite(value) else None
    return value


def verdict(*, holds: bool, in_direction: bool = False, testable: bool = True) -> str:
    """The verdict that follows from a notebook's own rule: holds > in direction > does not hold here.

    Raises ValueError for text, None and nan, which are no answers, though Python takes "no" and nan for true.
    """
    for name, value in {"holds": holds, "in_direction": in_direction, "testable": testable}.items():
        if value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f"{name} must be True or False, got {value!r}: compare it with a bound first")
    if not testable:
        return UNTESTABLE
    return HOLDS if holds else DIRECTION if in_direction else FAILS


class Report:
    """Collects one notebook's results in the folder `out`; with out=None it checks everything and writes nothing."""

    def __init__(self, out=None):
        self.out = None if out is None else Path(out)
        self.claims = {}

    def figure(self, fig, name: str, data: pd.DataFrame) -> None:
        """Save a matplotlib figure as name.png and the numbers behind it as name.csv."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            fig.savefig(self.out / f"{name}.png", metadata={"Software": None})
        self.table(data, name)

    def table(self, data: pd.DataFrame, name: str) -> None:
        """Save a table as name.csv, floats to six digits."""
        text = data.to_csv(index=False, float_format=FORMAT, lineterminator="\n")
        if self.out is not None:
            write(self.out / f"{name}.csv", text)

    def metrics(self, **values) -> None:
        """Save headline numbers as metrics.json, for `dvc metrics show` and `dvc metrics diff`."""
        text = json.dumps(rounded(values), indent=1, sort_keys=True) + "\n"
        if self.out is not None:
            write(self.out / "metrics.json", text)

    def claim(self, *, id, statement, paper, measured, verdict, ci=(None, None), seeds=None) -> dict:
        """Record what a paper says beside what was measured; a repeated id replaces the earlier record.

        measured: a number or a short string; ci: its 95 % interval; seeds: how many; verdict: from `verdict(...)`.
        """
        if verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {verdict!r}: compute one with report.verdict(...)")
        if not re.fullmatch(r"[a-z0-9-]+", id):
            raise ValueError(f"claim id {id!r}: lower-case letters, digits and hyphens only")
        low, high = ci
        self.claims[id] = rounded(
            dict(
                id=id,
                statement=statement,
                paper=paper,
                measured=measured,
                low=low,
                high=high,
                seeds=seeds,
                verdict=verdict,
            )
        )
        if self.out is not None:
            write(self.out / "claims.json", json.dumps(list(self.claims.values()), indent=1, ensure_ascii=False) + "\n")
        return self.claims[id]


def collect(figures=FIGURES) -> pd.DataFrame:
    """Every claim under `figures`, one row each, in the order of the notebooks."""
    rows = []
    for path in sorted(Path(figures).glob("*/*/claims.json")):
        notebook = path.parent.relative_to(figures).as_posix()
        if "/." in f"/{notebook}":  # scratch folder of an interrupted run
            continue
        rows += [{"notebook": notebook, **claim} for claim in json.loads(path.read_text(encoding="utf-8"))]
    return pd.DataFrame(rows, columns=COLUMNS)


def scorecard(claims: pd.DataFrame) -> str:
    """The claims as a markdown table."""

    def cell(claim) -> str:
        value = f"{claim.measured:.3g}" if isinstance(claim.measured, float) else str(claim.measured)
        known = pd.notna(claim.low) and pd.notna(claim.high)
        return f"{value} [{claim.low:.3g}, {claim.high:.3g}]" if known else value

    lines = ["| notebook | claim | paper | measured here [95 % interval] | verdict |", "|---|---|---|---|---|"]
    for claim in claims.itertuples():
        link = f"[{claim.notebook}](notebooks/{claim.notebook}.ipynb)"
        lines.append(f"| {link} | {claim.statement} | {claim.paper} | {cell(claim)} | **{claim.verdict}** |")
    return "\n".join(lines) + "\n"


def update_readme(table: str, path=ROOT / "README.md") -> None:
    """Put `table` between the scorecard marks of a markdown file. Raises ValueError when the marks are gone."""
    text = Path(path).read_text(encoding="utf-8")
    start, end = "<!-- scorecard:start -->\n", "<!-- scorecard:end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{relative(path)} needs the lines {start.strip()} and {end}, once each")
    head, rest = text.split(start)
    write(path, head + start + table + end + rest.split(end)[1])


def provenance() -> dict:
    """What produced this run: commit, versions, machine. Varies by machine, so keep it out of committed results.

    Never raises: what cannot be told, as without git or a package, is "unknown" or "not installed".
    """

    def git(*command) -> str | None:
        try:
            done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    changed = git("status", "--porcelain")
    packages = "torch", "transformers", "bitsandbytes", "peft", "numpy", "pandas", "matplotlib"
    return {
        "commit": git("rev-parse", "--short", "HEAD") or "unknown",
        "changed files": "unknown" if changed is None else len(changed.splitlines()),
        "stage": os.environ.get("DVC_STAGE", "none"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        **{package: version(package) for package in packages},
    }
