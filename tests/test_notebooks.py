"""Guards over the notebooks, their parameters and the pipeline's declared outputs."""

import ast
import subprocess
import sys
from importlib.metadata import distributions

import nbformat
import pytest
from dvc.repo import Repo
from packaging.specifiers import SpecifierSet

from compendium import report, run, settings
from compendium.paths import FIGURES, NOTEBOOKS, ROOT, relative

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


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_checked_cells_have_something_to_compare(path):
    checked = [c for c in nbformat.read(path, 4).cells if "nbval-check-output" in c.metadata.get("tags", [])]
    assert all(cell.execution_count is not None and cell.outputs for cell in checked), "run `make outputs`"
    assert len(checked) >= 2 or path.parent == NOTEBOOKS


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
    assert all((ROOT / out).exists() for out in outs), "run `make repro`"


def test_the_pipeline_is_what_the_stage_table_and_the_imports_say():
    done = subprocess.run([sys.executable, "tools/pipeline.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run `python tools/pipeline.py`: {done.stderr}"


def modules_imported(source: str) -> set:
    """Files of the library that this source imports, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    paths = {ROOT / "lib" / f"{name.replace('.', '/')}.py" for name in names if name.startswith("compendium")}
    return {path for path in paths if path.exists()}


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_stages_depend_on_every_library_module_they_run(path):
    """Directly or through other modules; otherwise figures would go stale unnoticed. `paths` holds folder names only."""
    (deps,) = [stage["deps"] for stage in STAGES.values() if relative(path) in stage["cmd"]]
    source = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    todo, needed = modules_imported(source), set()
    while todo:
        module = todo.pop()
        needed.add(module)
        todo |= modules_imported(module.read_text()) - needed
    needed = {relative(module) for module in needed if module.stem != "paths"}
    assert not needed - set(deps), "add these to the stage's deps in dvc.yaml"
    assert not {dep for dep in deps if dep.startswith("lib/")} - needed, "the stage does not use these"


def test_the_readme_scorecard_is_the_committed_one():
    text = (ROOT / "README.md").read_text()
    table = text.split("<!-- scorecard:start -->\n")[1].split("<!-- scorecard:end -->")[0]
    assert table == report.scorecard(report.collect()), "run `make repro`"


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
