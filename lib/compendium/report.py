"""What a notebook leaves behind: figures with their numbers, tables, metrics, claims; and where it all came from.

    report = Report(out)                      # out: the notebook's folder under figures/; None writes nothing
    report.figure(fig, "flips", frame)        # flips.png and flips.csv
    report.claim("flips-follow", "paper", "...", stats.mean(values, "seeds"), bar=0.0, paper="what it reports")

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

from compendium import readings, settings, stats
from compendium.files import write
from compendium.paths import FIGURES, ROOT, relative
from compendium.stats import Estimate

DPI = 120
KINDS = {
    "paper": "Claims of the papers",
    "control": "Controls, which a trivial explanation would fail or pass as well",
    "ours": "Our own questions",
    "check": "Checks of our own software, which are no findings",
}
COLUMNS = ["notebook", "id", "kind", "statement", "paper", "value", "low", "high", "n", "unit", "side", "bar"]
COLUMNS += ["verdict", "margin", "power", "why", "figure"]
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

    def claim(
        self,
        id: str,
        kind: str,
        statement: str,
        estimate: Estimate,
        *,
        bar,
        side: str = stats.ABOVE,
        paper: str = "",
        margin: float | None = None,
        untestable: str | None = None,
        figure: str | None = None,
    ) -> dict:
        """Record a claim beside what was measured; a repeated id replaces the earlier record. The verdict is
        `stats.verdict(estimate, bar, side)`, and nothing else decides it.

        kind: of KINDS; a check is decided by its value alone. statement: names the quantity, its bar and side. paper:
        what it reports. margin: for a claim of a paper, how far beyond the bar a truth would have to lie to matter; the
        record then carries the power of this design to see that, from the spread that was observed. untestable: why the
        design cannot decide, if it cannot. figure: its name.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
        if not re.fullmatch(r"[a-z0-9-]+", id):
            raise ValueError(f"claim id {id!r}: lower-case letters, digits and hyphens only")
        if kind == "check":
            judged = estimate._replace(low=estimate.value, high=estimate.value, n=stats.LEAST)
            verdict = stats.verdict(judged, bar, side)
        else:
            verdict = stats.UNTESTABLE if untestable else stats.verdict(estimate, bar, side)
        if verdict == stats.UNTESTABLE and not untestable:
            few = f"{estimate.n} {estimate.unit}, fewer than {stats.LEAST}"
            untestable = few if estimate.n < stats.LEAST else "no interval"
        chance = stats.power(estimate, margin) if kind == "paper" and margin else None
        told = {"side": side, "bar": list(bar) if side == stats.WITHIN else bar, "verdict": verdict}
        told |= {"margin": margin if chance is not None else None, "power": chance}
        self.claims[id] = rounded(
            {"id": id, "kind": kind, "statement": statement, "paper": paper, **estimate._asdict(), **told}
            | {"why": untestable if verdict == stats.UNTESTABLE else None, "figure": figure}
        )
        if self.out is not None:
            write(self.out / "claims.json", json.dumps(list(self.claims.values()), indent=1, ensure_ascii=False) + "\n")
        return self.claims[id]

    def summary(self) -> pd.DataFrame:
        """The claims so far, as a table to show."""
        shown = ["id", "value", "low", "high", "n", "unit", "side", "bar", "verdict"]
        return pd.DataFrame(list(self.claims.values()), columns=COLUMNS[1:])[shown]


def collect(figures=FIGURES) -> pd.DataFrame:
    """Every claim under `figures`, one row each, in the order of the notebooks."""
    rows = []
    for path in sorted(Path(figures).glob("*/*/claims.json")):
        notebook = path.parent.relative_to(figures).as_posix()
        if "/." in f"/{notebook}":  # scratch folder of an interrupted run
            continue
        rows += [{"notebook": notebook, **claim} for claim in json.loads(path.read_text(encoding="utf-8"))]
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(claims: pd.DataFrame) -> pd.DataFrame:
    """(kinds x verdicts) how many claims; checks left out."""
    found = claims[claims.kind != "check"]
    table = pd.crosstab(found.kind, found.verdict)
    return table.reindex(index=[kind for kind in KINDS if kind != "check"], columns=stats.VERDICTS, fill_value=0)


def scorecard(claims: pd.DataFrame) -> str:
    """The claims as markdown, a table per kind; checks are left out."""

    def number(value) -> str:
        return "–" if value is None or pd.isna(value) else f"{value:.3g}"

    def measured(claim) -> str:
        known = pd.notna(claim.low) and pd.notna(claim.high)
        interval = f" [{number(claim.low)}, {number(claim.high)}]" if known else ""
        return f"{number(claim.value)}{interval}, {claim.n:.0f} {claim.unit}"

    def judged(claim) -> str:
        return f"**{claim.verdict}**" + (f" ({claim.why})" if isinstance(claim.why, str) else "")

    lines = []
    for kind, title in KINDS.items():
        of = claims[claims.kind == kind]
        if kind == "check" or of.empty:
            continue
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts(claims).loc[kind].items() if n)
        lines += [f"### {title}", "", f"{len(of)} claims: {told}.", ""]
        lines += [
            "| notebook | claim | paper | measured here [95 % interval], units | verdict |",
            "|---|---|---|---|---|",
        ]
        for claim in of.itertuples():
            link = f"[{claim.notebook}](executed/{claim.notebook}.ipynb)"
            chance = f"; power {claim.power:.0%} at a margin of {claim.margin:g}" if pd.notna(claim.power) else ""
            cells = (link, claim.statement, claim.paper + chance, measured(claim), judged(claim))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def update(path, mark: str, made: str) -> None:
    """Put a text between two marks of a markdown file, such as `<!-- scorecard:start -->` and `<!-- scorecard:end -->`.

    Raises ValueError when the marks are gone.
    """
    text = Path(path).read_text(encoding="utf-8")
    start, end = f"<!-- {mark}:start -->\n", f"<!-- {mark}:end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{relative(path)} needs the lines {start.strip()} and {end}, once each")
    head, rest = text.split(start)
    write(path, head + start + made + end + rest.split(end)[1])


def headlines(path=ROOT / "book/headlines.yaml", figures=FIGURES) -> list[dict]:
    """The five results that README and the book lead with: title, text with its numbers filled in, figure.

    Raises readings.ReadingError for a number that no table holds any more.
    """
    told = settings.read(path)["headlines"]
    return [one | {"text": readings.fill(one["text"], figures, figures)} for one in told]


def results_first(headlines: list[dict]) -> str:
    """The five results as markdown, each with its figure."""
    rows = []
    for one in headlines:
        link = f"executed/{one['figure'].rsplit('/', 1)[0]}.ipynb"
        rows.append(
            f"| **{one['title']}.** {one['text']} [Read]({link}) | ![{one['title']}](figures/{one['figure']}.png) |\n"
        )
    return "| | |\n|---|---|\n" + "".join(rows)


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
