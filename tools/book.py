"""Write the sources of the book from what is committed, and build it: build/book/html/index.html.

    python tools/book.py             # sources, then Sphinx, any warning of which is an error
    python tools/book.py --sources   # build/book/source only

Pages of their own lie in book/; executed notebooks, figures, claims and docstrings give the others. Nothing is computed
here, and nothing is fetched.
"""

import ast
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd

from compendium import publish, report, stats
from compendium.paths import EXECUTED, FIGURES, NOTEBOOKS, ROOT

BOOK, SOURCE, HTML = ROOT / "book", ROOT / "build/book/source", ROOT / "build/book/html"
PARTS = {
    "01_attribution": "1 Attribution",
    "02_unlearning": "2 Unlearning",
    "03_policy_opt": "3 Policy optimisation",
    "04_tabular": "4 Tabular models",
    "05_xai": "5 Explanations",
}
FOLDED = ("page.", "page_claims.", "results.claim(", "from compendium", "import ")


def names() -> list[str]:
    """Every study and walkthrough, as section/name, in order."""
    return [p.relative_to(NOTEBOOKS).with_suffix("").as_posix() for p in sorted(NOTEBOOKS.glob("*/[0-9]*.ipynb"))]


def title(name: str) -> str:
    """A notebook's title."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells[0].source.lstrip("# ").split("\n")[0]


def put(path: str, text: str) -> None:
    """Write one page."""
    target = SOURCE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def figures_of(name: str) -> list[tuple[str, str, str]]:
    """(figure, what is to be seen, caption) for each figure of a notebook, in its order."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    told = [t for c in cells if "figures" in c.metadata.get("tags", []) for t in publish.captions(c.source)]
    return [(Path(path).stem, alt, caption) for alt, path, caption in told]


def directive(name: str, figure: str, alt: str, caption: str, up: str) -> str:
    """A figure with its caption and the way to its numbers; up: from the page to the root of the book."""
    links = f"[Alone, with its numbers]({up}figures/{name}/{figure}.md)"
    alt = alt.replace("\n", " ")
    head = f":alt: {alt}\n:name: {name.replace('/', '-')}-{figure}\n:class: figure\n"
    return f"```{{figure}} {up}pictures/{name}/{figure}.png\n{head}\n{caption} {links}\n```"


def notebook(name: str) -> None:
    """One executed copy as a page: figures with captions, plots and book-keeping folded."""
    ran = nbformat.read(EXECUTED / f"{name}.ipynb", 4)
    told, out = {f: (alt, caption) for f, alt, caption in figures_of(name)}, []
    source = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    groups = iter([publish.captions(c.source) for c in source if "figures" in c.metadata.get("tags", [])])
    for cell in ran.cells:
        tags = cell.metadata.get("tags", [])
        if "provenance" in tags:
            continue
        if "figures" in tags:
            here = [Path(path).stem for _, path, _ in next(groups)]
            cell = nbformat.v4.new_markdown_cell("\n\n".join(directive(name, f, *told[f], "../../") for f in here))
        elif cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if publish.PNG not in o.get("data", {})]
            lines = [line for line in cell.source.splitlines() if line.strip()]
            if "parameters" in tags or (lines and all(line.startswith((*FOLDED, " ", ")")) for line in lines)):
                cell.metadata["tags"] = [*tags, "hide-input"]
        else:
            cell.source = links(cell.source)
        out.append(cell)
    ran.cells = out
    ran.metadata = {"kernelspec": ran.metadata["kernelspec"], "language_info": {"name": "python"}}
    put(f"notebooks/{name}.ipynb", nbformat.writes(ran))


def links(text: str) -> str:
    """Links to files of the repository that are no pages of the book, as their paths."""

    def one(found: re.Match) -> str:
        label, target = found[1], found[2]
        if target.startswith(("http", "#")):
            return found[0]
        stem = target.split("#")[0]
        if stem.endswith(".ipynb") and "notebooks/" not in stem and not stem.startswith("../../"):
            return found[0]
        shown = stem.replace("../", "")
        return label if label.strip("`") == shown else f"{label} (`{shown}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", one, text)


def figure_pages() -> None:
    """A page for each figure: large, with its numbers, its notebook and the claims that rest on it."""
    claims = report.collect()
    for name in names():
        shutil.copytree(FIGURES / name, SOURCE / "pictures" / name, dirs_exist_ok=True)
        for figure, alt, caption in figures_of(name):
            table = FIGURES / name / f"{figure}.csv"
            rows = pd.read_csv(table, keep_default_na=False)
            using = claims[(claims.notebook == name) & (claims.figure == figure)]
            up = "../../../"
            bold = re.match(r"\*\*(.+?)\*\*\s*(.*)", caption, re.DOTALL)
            lines = [
                f"# {bold[1].rstrip('.')}",
                f"```{{image}} {up}pictures/{name}/{figure}.png\n:alt: {alt}\n:class: figure\n```",
                bold[2],
                f"- **What is to be seen.** {alt}",
                f"- **Numbers.** {{download}}`{figure}.csv <{up}pictures/{name}/{figure}.csv>`, {len(rows):,} rows of "
                f"{', '.join(f'`{c}`' for c in rows.columns[:8])}{' and more' if rows.shape[1] > 8 else ''}.",
                f"- **Made by** [{title(name)}]({up}notebooks/{name}.ipynb), "
                f"`lib/compendium/{name.split('/')[0][3:]}/reports/{page_of(name)}.py`.",
                f"- **Again.** `python -m compendium.run notebooks/{name}.ipynb notebooks/{name}.yaml`",
            ]
            if len(using):
                rest = [f"[{c.statement}]({up}claims/{name}/{c.id}.md) ({c.verdict})" for c in using.itertuples()]
                lines.append("- **Claims that rest on it.** " + "; ".join(rest))
            put(f"figures/{name}/{figure}.md", "---\norphan: true\n---\n\n" + "\n\n".join(lines) + "\n")


def page_of(name: str) -> str:
    """The module of a notebook's figures and claims."""
    return name.split("/")[1][3:]


def forest(claim, width: int = 640) -> str:
    """A small drawing of an estimate, its interval and its bar."""
    bars = claim.bar if isinstance(claim.bar, list) else [claim.bar]
    bars = [float(b) for b in bars if b is not None]
    ends = [v for v in (claim.value, claim.low, claim.high, *bars) if v is not None and v == v]
    if claim.value != claim.value or not ends:
        return ""
    low, high = min(ends), max(ends)
    room = (high - low or abs(high) or 1) * 0.15
    place = lambda v: 20 + (width - 40) * (v - low + room) / (high - low + 2 * room)
    parts = [f'<svg class="forest" viewBox="0 0 {width} 70" role="img" aria-label="{html.escape(measured(claim))}">']
    parts.append(f'<line x1="20" x2="{width - 20}" y1="50" y2="50" stroke="currentColor" stroke-width="0.5"/>')
    for bar in bars:
        parts.append(
            f'<line x1="{place(bar):.1f}" x2="{place(bar):.1f}" y1="12" y2="50" stroke="#b3460f" stroke-dasharray="4 3"/>'
            f'<text x="{place(bar):.1f}" y="64" font-size="12" text-anchor="middle" fill="#b3460f">bar {bar:g}</text>'
        )
    if claim.low == claim.low and claim.low is not None:
        parts.append(
            f'<line x1="{place(claim.low):.1f}" x2="{place(claim.high):.1f}" y1="30" y2="30" '
            'stroke="#0b62a4" stroke-width="4"/>'
        )
    parts.append(f'<circle cx="{place(claim.value):.1f}" cy="30" r="6" fill="#0b62a4"/></svg>')
    return "".join(parts)


def measured(claim) -> str:
    """An estimate as text."""
    interval = f" [{claim.low:.3g}, {claim.high:.3g}]" if claim.low == claim.low and claim.low is not None else ""
    value = "no estimate" if claim.value != claim.value else f"{claim.value:.3g}"
    return f"{value}{interval}, {claim.n:.0f} {claim.unit}"


def badge(verdict: str) -> str:
    """A verdict as a coloured mark."""
    return f'<span class="verdict {verdict.split()[0]}">{verdict}</span>'


def history() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(notebook, id) -> [(date, verdict)], where the verdict changed, from the commits of figures/claims.csv."""
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout
    found: dict = {}
    for line in reversed(git("log", "--format=%h %cs", "--", "figures/claims.csv").splitlines()):
        commit, day = line.split()
        try:
            from io import StringIO

            table = pd.read_csv(StringIO(git("show", f"{commit}:figures/claims.csv")))
        except ValueError:
            continue
        for claim in table.itertuples():
            past = found.setdefault((claim.notebook, claim.id), [])
            if not past or past[-1][1] != claim.verdict:
                past.append((day, str(claim.verdict)))
    return found


RULES = {
    "above": "supported if the whole interval lies above the bar, contradicted if all of it lies below",
    "below": "supported if the whole interval lies below the bar, contradicted if all of it lies above",
    "within": "supported if the whole interval lies between the two bars, contradicted if all of it lies outside",
}


def claim_pages() -> None:
    """A page for each claim: what it says, by which rule, what was measured, where, and what was said before."""
    past = history()
    for claim in report.collect().itertuples():
        up, name = "../../../", claim.notebook
        bar = claim.bar if isinstance(claim.bar, list) else [claim.bar]
        few = f" Fewer than {stats.LEAST} independent {claim.unit} decide nothing." if claim.kind != "check" else ""
        lines = [f"# {claim.statement}", badge(claim.verdict) + (f" {claim.why}" if isinstance(claim.why, str) else "")]
        lines += [forest(claim), f"**Measured here:** {measured(claim)} (95 % interval)."]
        if claim.paper:
            lines.append(f"**The paper:** {claim.paper}.")
        lines.append(
            f"**Bar:** {' to '.join(f'{b:g}' for b in bar if b is not None)}. **Rule:** {RULES[claim.side]}; undecided if it contains a bar.{few}"
        )
        if pd.notna(claim.power):
            lines.append(
                f"**Power:** {claim.power:.0%}: the chance that this design supports the claim if the truth lies "
                f"{claim.margin:g} beyond the bar, simulated from the spread that was observed."
            )
        lines.append(f"**Kind:** {report.KINDS[claim.kind].lower()}.")
        told = {f: (alt, caption) for f, alt, caption in figures_of(name)}
        if isinstance(claim.figure, str) and claim.figure in told:
            alt, caption = told[claim.figure]
            lines.append(
                f"```{{figure}} {up}pictures/{name}/{claim.figure}.png\n:alt: {alt}\n:class: figure\n\n"
                f"{caption} [Its numbers]({up}figures/{name}/{claim.figure}.md)\n```"
            )
        lines.append(
            f"**Notebook:** [{title(name)}]({up}notebooks/{name}.ipynb). **Again:** "
            f"`python -m compendium.run notebooks/{name}.ipynb notebooks/{name}.yaml`, or `make repro` for all."
        )
        if before := past.get((name, claim.id)):
            lines.append("**Verdicts so far:** " + "; ".join(f"{day} {verdict}" for day, verdict in before) + ".")
        put(f"claims/{name}/{claim.id}.md", "---\norphan: true\n---\n\n" + "\n\n".join(filter(None, lines)) + "\n")


def scorecard() -> None:
    """All claims in one table to filter."""
    claims = report.collect()
    shown = claims[claims.kind != "check"]
    kinds = {"paper": "of papers", "control": "controls", "ours": "our own questions"}
    choices = lambda by, options: (
        f'<select data-by="{by}" aria-label="{by}"><option value="">{by}: all</option>'
        + "".join(f'<option value="{value}">{label}</option>' for value, label in options)
        + "</select>"
    )
    rows = []
    for c in shown.itertuples():
        part = c.notebook.split("/")[0]
        rows.append(
            f'<tr data-kind="{c.kind}" data-verdict="{c.verdict}" data-section="{part}"><td><a href="claims/{c.notebook}/{c.id}.html">'
            f"{html.escape(c.statement)}</a></td><td>{html.escape(c.paper or '')}</td><td>{html.escape(measured(c))}</td>"
            f'<td>{badge(c.verdict)}</td><td><a href="notebooks/{c.notebook}.html">{c.notebook}</a></td></tr>'
        )
    counts = report.counts(claims)
    told = "; ".join(
        f"**{kinds[kind]}**: " + ", ".join(f"{n} {v}" for v, n in counts.loc[kind].items() if n)
        for kind in counts.index
    )
    filters = (
        '<div class="filters">'
        + choices("section", PARTS.items())
        + choices("kind", kinds.items())
        + choices("verdict", [(v, v) for v in stats.VERDICTS])
        + '<input data-by="text" type="search" placeholder="words" aria-label="words"> <output></output></div>'
    )
    body = (
        f'{filters}\n<div class="scroll"><table class="scorecard"><thead><tr><th>claim</th><th>the paper</th><th>here, 95 %</th>'
        f"<th>verdict</th><th>notebook</th></tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )
    put(
        "scorecard.md",
        f"# Scorecard\n\nClaims {told}. Verdicts follow from the interval and the bar alone; each claim has a page with both.\n\n```{{raw}} html\n{body}\n```\n",
    )


def gallery() -> None:
    """Every figure with its caption, by section."""
    lines = ["# Gallery", "Every figure, with the page that has its numbers."]
    for part, heading in PARTS.items():
        lines += [f"## {heading}", "::::{grid} 1 2 2 3\n:gutter: 2"]
        for name in (n for n in names() if n.startswith(part)):
            for figure, alt, caption in figures_of(name):
                bold = re.match(r"\*\*(.+?)\*\*", caption)[1]
                lines.append(
                    f":::{{grid-item-card}}\n:link: figures/{name}/{figure}\n:link-type: doc\n:img-top: pictures/{name}/{figure}.png\n"
                    f":img-alt: {alt}\n\n{bold}\n:::"
                )
        lines.append("::::")
    put("gallery.md", "\n\n".join(lines) + "\n")


def cards() -> str:
    """The five results as cards."""
    lines = ["::::{grid} 1 1 2 2\n:gutter: 3"]
    for one in report.headlines():
        name, figure = one["figure"].rsplit("/", 1)
        alt = next(alt for f, alt, _ in figures_of(name) if f == figure)
        lines.append(
            f":::{{grid-item-card}} {one['title']}\n:img-bottom: pictures/{one['figure']}.png\n:img-alt: {alt}\n\n{one['text']}\n\n"
            f"[The figure](figures/{one['figure']}.md) · [the notebook](notebooks/{name}.ipynb)\n:::"
        )
    return "\n\n".join([*lines, "::::"])


def interface() -> list[str]:
    """A page for each package: its public functions and classes with their docstrings; the pages' names."""
    found = []
    package = ROOT / "lib/compendium"
    for folder in sorted({p.parent for p in package.rglob("*.py")}):
        if folder.name in ("studies", "reports"):
            continue
        dotted = ".".join(folder.relative_to(ROOT / "lib").parts)
        lines = [f"# {dotted}"]
        for path in sorted(folder.glob("*.py")):
            if path.name == "__main__.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            public = [
                n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
            ]
            doc = ast.get_docstring(tree)
            if not doc and not public:
                continue
            lines.append(f"## {dotted if path.stem == '__init__' else f'{dotted}.{path.stem}'}")
            lines += [literal(doc)] if doc else []
            for node in public:
                lines += [f"### {node.name}", literal(signature(node), "python")]
                lines += [literal(told)] if (told := described(node)) else []
        if len(lines) > 1:
            put(f"api/{dotted}.md", "\n\n".join(lines) + "\n")
            found.append(f"api/{dotted}")
    return found


def signature(node) -> str:
    """`def f(a, b=1)` or `class C(Base)`, without the body."""
    bare = ast.parse("pass").body
    copy = type(node)(**{field: getattr(node, field) for field in node._fields} | {"body": bare, "decorator_list": []})
    return ast.unparse(ast.fix_missing_locations(copy)).rsplit(":", 1)[0].strip()


def described(node) -> str:
    """The docstrings of a function, or of a class and its public methods."""
    text = ast.get_docstring(node) or ""
    for inner in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and ast.get_docstring(inner):
            method = ast.get_docstring(inner).replace("\n", "\n    ")
            text += f"\n\n{signature(inner)}\n    {method}"
    return text.strip()


def literal(text: str, language: str = "text") -> str:
    """Text as it stands."""
    return f"```{language}\n{text}\n```"


def sources() -> None:
    """Write all sources of the book."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(BOOK, SOURCE, ignore=shutil.ignore_patterns("solutions", "headlines.yaml"))
    for path in sorted((BOOK / "solutions").glob("*.ipynb")):
        solved = nbformat.read(path, 4)
        for cell in solved.cells:
            cell.source = links(cell.source) if cell.cell_type == "markdown" else cell.source
        solved.metadata["language_info"] = {"name": "python"}
        put(f"solutions/{path.stem}.ipynb", nbformat.writes(solved))
    shutil.copy(ROOT / "references.bib", SOURCE / "references.bib")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        put(name.lower(), links((ROOT / name).read_text(encoding="utf-8")))
    put("data.md", links((ROOT / "data/README.md").read_text(encoding="utf-8")))
    for name in names():
        notebook(name)
    figure_pages(), claim_pages(), scorecard(), gallery()
    tree = lambda caption, pages: (
        f"```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n:hidden:\n\n" + "\n".join(pages) + "\n```"
    )
    trees = [
        tree(heading, [f"notebooks/{n}" for n in names() if n.startswith(part)]) for part, heading in PARTS.items()
    ]
    trees.insert(0, tree("Results", ["scorecard", "gallery"]))
    trees.append(tree("Use it", ["own_model", "teach", "rerun", *(f"solutions/{p}" for p in PARTS)]))
    trees.append(tree("Reference", ["glossary", "bibliography", "data", *interface(), "contributing", "changelog"]))
    index = (BOOK / "index.md").read_text(encoding="utf-8")
    counts = report.counts(report.collect()).loc["paper"]
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    put(
        "index.md",
        index.replace("<!-- cards -->", cards()).replace("<!-- counts -->", told) + "\n" + "\n\n".join(trees) + "\n",
    )


def main(arguments: list[str]) -> int:
    missing = [name for name in names() if not (EXECUTED / f"{name}.ipynb").exists()]
    if missing:
        sys.exit(f"error: there is no executed copy of {missing[0]}: run `make repro`")
    sources()
    if "--sources" in arguments:
        return 0
    words = ["-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", str(SOURCE), str(HTML)]
    return subprocess.run([sys.executable, *words], env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
