"""Guards over the notebooks, their parameters and the pipeline's declared outputs."""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest
from dvc.repo import Repo
from packaging.specifiers import SpecifierSet

from compendium import dependencies, publish, readings, report, run, settings
from compendium.paths import EXECUTED, FIGURES, NOTEBOOKS, ROOT, relative

sys.path.insert(0, str(ROOT / "tools"))
import itertools

import quick

PATHS = sorted(NOTEBOOKS.rglob("[0-9]*.ipynb"))
NAMES = [relative(path) for path in PATHS]
STAGES = settings.read(ROOT / "dvc.yaml")["stages"]


def tracked(*patterns):
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True
    )
    return {path for path in done.stdout.splitlines() if (ROOT / path).exists()}


def test_notebooks_are_tidy():
    done = subprocess.run(
        [sys.executable, "tools/nbtidy.py", "--check", *NAMES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"run `python tools/nbtidy.py notebooks/*/*.ipynb`:\n{done.stdout}"


def test_a_notebook_that_reads_units_is_told_what_they_were_made_with():
    stages = settings.read(ROOT / "pipeline.yaml")["stages"].values()
    made = {
        spec["outs"][0]: spec["params"][0] for spec in stages if "params" in spec and isinstance(spec["outs"][0], str)
    }
    compared = 0
    for path in NOTEBOOKS.glob("*/*.yaml"):
        told = settings.read(path)
        for key, value in (settings.read(ROOT / made[told["folder"]]) if "folder" in told else {}).items():
            if key in told:
                compared += 1
                assert told[key] == value, f"{path.name}: {key}"
    assert compared >= 6


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_no_cell_is_longer_than_a_screen(path):
    for i, cell in enumerate(nbformat.read(path, 4).cells):
        assert cell.cell_type != "code" or len(cell.source.splitlines()) <= 40, f"cell {i}"


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_quick_runs_are_of_the_notebook_and_have_something_to_compare(path):
    assert quick.same_code(path), "run `make outputs`"
    cells = nbformat.read(quick.place(path), 4).cells
    checked = [c for c in cells if "nbval-check-output" in c.metadata.get("tags", [])]
    assert all(cell.execution_count is not None and cell.outputs for cell in checked), "run `make outputs`"
    assert len(checked) >= 2 or path.parent == NOTEBOOKS


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_visible_code_fits_the_page(path):
    for i, cell in enumerate(nbformat.read(path, 4).cells):
        if cell.cell_type == "code":
            assert max(map(len, cell.source.splitlines()), default=0) <= 88, f"cell {i}"


STUDIES = [path for path in PATHS if path.parent != NOTEBOOKS]
of_studies = pytest.mark.parametrize("path", STUDIES, ids=[relative(path) for path in STUDIES])


@of_studies
def test_no_number_in_prose_is_typed_and_all_are_in_the_tables(path):
    folder = FIGURES / path.relative_to(NOTEBOOKS).with_suffix("")
    told = [c.source for c in nbformat.read(path, 4).cells if "reading" in c.metadata.get("tags", [])]
    assert told[0].startswith("**Results first.**")
    for text in told:
        assert not readings.typed(text)
        assert not readings.REFERENCE.search(readings.fill(text, folder))


@of_studies
def test_every_figure_stands_under_its_cell_with_caption_and_alt_text(path):
    name = path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    cells = nbformat.read(path, 4).cells
    shown = []
    for above, cell in itertools.pairwise(cells):
        if "figures" in cell.metadata.get("tags", []):
            assert above.cell_type == "code"
            shown += publish.captions(cell.source)
    assert {Path(p).stem for _, p, _ in shown} == {p.stem for p in (FIGURES / name).glob("*.png")}
    for alt, where, caption in shown:
        assert where.startswith(f"../../figures/{name}/")
        assert len(alt.split()) >= 5, where
        assert caption.startswith("**"), where
        assert not readings.typed(caption), where


@of_studies
def test_the_executed_copy_is_committed_light_and_has_its_figures_and_numbers(path):
    name = path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    copy = nbformat.read(EXECUTED / f"{name}.ipynb", 4)
    pictures = [o for c in copy.cells if c.cell_type == "code" for o in publish.pictures(c)]
    assert len(pictures) >= len(list((FIGURES / name).glob("*.png")))
    assert max(len(o.data[publish.PNG]) for o in pictures) * 3 / 4 <= 150_000
    text = "\n".join(c.source for c in copy.cells if "reading" in c.metadata.get("tags", []))
    assert not readings.REFERENCE.search(text)
    assert not [c for c in copy.cells if "Run with other values" in c.source]


def test_executed_copies_are_twelve_megabytes_at_most():
    assert sum(path.stat().st_size for path in EXECUTED.rglob("*.ipynb") if "failed" not in path.name) <= 12e6


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_parameter_files_fit_their_notebook(path):
    declared = run.parameters(nbformat.read(path, 4))
    assert "out" in declared
    files = [path.with_suffix(".yaml"), *path.parent.glob(f"{path.stem}.*.yaml")]
    for file in files:
        settings.validate(settings.read(file), declared)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_every_notebook_is_a_stage_that_depends_on_it(path):
    name = relative(path)
    stages = [stage for stage in STAGES.values() if name in stage["cmd"]]
    assert len(stages) == 1
    assert name in stages[0]["deps"]


def test_every_figure_belongs_to_a_stage_and_every_stage_output_exists():
    with Repo(str(ROOT)) as repo:
        outs = {out.fspath.removeprefix(f"{ROOT}/") for out in repo.index.outs if not out.use_cache}
    orphans = {
        path for path in tracked("figures") if not any(path == out or path.startswith(f"{out}/") for out in outs)
    }
    assert not orphans, "these were made by no stage: delete them"
    made = {out for out in outs if not out.endswith(".ran")}  # a clone that has run nothing lacks these marks
    assert all((ROOT / out).exists() for out in made), "run `make repro`"


def test_the_pipeline_is_what_the_stage_table_and_the_imports_say():
    done = subprocess.run([sys.executable, "tools/pipeline.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run `python tools/pipeline.py`: {done.stderr}"


LOADED = """
import json, os, sys
import matplotlib.pyplot, nbformat, numpy, pandas, scipy.stats, seaborn, sklearn, torch, transformers
for path in sys.argv[1:]:
    if os.fork() == 0:
        cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        lines = "\\n".join(cells).splitlines(keepends=True)
        import ast
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                exec(ast.unparse(node), {})
        files = [m.__file__ for n, m in sys.modules.items() if n.startswith("compendium") and getattr(m, "__file__", None)]
        print(json.dumps([path, files]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_stages_depend_on_every_library_module_that_their_notebook_loads():
    """By what really is in memory after the imports; otherwise figures would go stale unnoticed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib"), "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", LOADED, *map(str, PATHS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == len(PATHS), done.stderr[-2000:]
    for path, files in found:
        (deps,) = [stage["deps"] for stage in STAGES.values() if relative(path) in stage["cmd"]]
        loaded = {relative(file) for file in files if not dependencies.apart(Path(file))}
        assert not loaded - set(deps), f"{path}: run `python tools/pipeline.py`"


def test_nothing_but_notebooks_commands_and_tests_uses_studies():
    for path in sorted((ROOT / "lib/compendium").rglob("*.py")):
        users = {"__main__.py", "check.py"}
        if path.parent.name not in ("studies", "reports") and path.name not in users:
            names = {part for file in dependencies.imported(path.read_text()) for part in file.parts}
            assert "studies" not in names, path


def test_nothing_but_notebooks_uses_reports():
    for path in sorted((ROOT / "lib/compendium").rglob("*.py")):
        if path.parent.name != "reports":
            names = {part for file in dependencies.imported(path.read_text()) for part in file.parts}
            assert "reports" not in names, path


def test_sections_use_lower_sections_only():
    order = ["attribution", "unlearning", "policy_opt", "tabular", "xai"]
    for path in sorted((ROOT / "lib/compendium").rglob("*.py")):
        parts = path.relative_to(ROOT / "lib/compendium").parts
        if parts[0] == "exercises":  # knows the answers of all sections, and nothing but notebooks uses it
            continue
        own = order.index(parts[0]) if parts[0] in order else -1
        for file in dependencies.imported(path.read_text()):
            other = file.relative_to(ROOT / "lib/compendium").parts[0]
            if other in order and path.name not in ("check.py",):
                assert order.index(other) <= own, f"{path} uses {file}"


def test_modules_are_one_idea_long():
    for path in sorted((ROOT / "lib/compendium").rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 350, path
    assert sum((ROOT / path).read_text().count("fmt: " + "skip") for path in tracked("*.py", "*.ipynb")) <= 20


def between(path, mark):
    return (ROOT / path).read_text().split(f"<!-- {mark}:start -->\n")[1].split(f"<!-- {mark}:end -->")[0]


def test_the_scorecard_and_the_results_of_the_readme_are_the_committed_ones():
    assert between("SCORECARD.md", "scorecard") == report.scorecard(report.collect()), "run `make repro`"
    assert between("README.md", "results") == report.results_first(report.headlines()), "run `make repro`"
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_the_claims_file_is_the_collected_claims():
    expected = report.collect().to_csv(index=False, float_format=report.FORMAT, lineterminator="\n")
    assert (FIGURES / "claims.csv").read_text() == expected, "run `make repro`"


def test_all_fixed_packages_are_pinned_and_used():
    fixed = [
        "jupyterlab",
        "papermill",
        "torch",
        "transformers",
        "bitsandbytes",
        "peft",
        "matplotlib",
        "seaborn",
        "dvc",
        "nbval",
        "trl",
    ]
    pins = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-rl.txt"))
    used = "\n".join(
        (ROOT / path).read_text()
        for path in tracked("lib", "notebooks", "Makefile", "dvc.yaml", "pyproject.toml")
        if not path.endswith(".png")
    )
    for package in fixed:
        assert f"\n{package}==" in pins, package
        assert package.replace("jupyterlab", "jupyter lab") in used, package


def test_packages_install_on_every_python_that_is_allowed():
    """Python 3.11 comes as 3.11.2 with some systems; a pin that asks for more ends in pip's conflict report there."""
    asked = {found.name: found.metadata["Requires-Python"] or "" for found in distributions()}
    assert not [name for name, versions in asked.items() if not SpecifierSet(versions).contains("3.11.0")]


def test_the_code_is_clean():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--quiet", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "lib", "tests", "tools", "benchmarks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"run `ruff format lib tests tools benchmarks`: {done.stdout}"
