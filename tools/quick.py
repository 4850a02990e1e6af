"""Quick runs of the notebooks, kept apart from them for nbval to compare: tests/quick/<section>/<notebook>.ipynb.

    python tools/quick.py                    # execute all with their quick defaults, and store what they print
    python tools/quick.py NOTEBOOK ...       # these
    python tools/quick.py --check            # list copies whose code is not the notebook's, exit 1

A copy holds the code cells of its notebook and the printed text of those tagged `nbval-check-output`. The notebooks
themselves carry no outputs, so that numbers of a quick run are never read as results.
"""

import os
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, QUICK = ROOT / "notebooks", ROOT / "tests/quick"
KEPT = "nbval-check-output"


def place(path: Path) -> Path:
    """Where the quick run of a notebook is kept."""
    return QUICK / path.relative_to(NOTEBOOKS)


def copy(path: Path, stored=None):
    """The code cells of a notebook, without outputs; or with those of `stored`, a notebook with the same code."""
    source = nbformat.read(path, as_version=4)
    name = path.relative_to(ROOT).as_posix()
    note = f"A quick run of `{name}` with its small default values, for nbval to compare. Nothing here is a result."
    cells = [nbformat.v4.new_markdown_cell(note)]
    outputs = [cell for cell in stored.cells if cell.cell_type == "code"] if stored else []
    for number, cell in enumerate(cell for cell in source.cells if cell.cell_type == "code"):
        made = nbformat.v4.new_code_cell(cell.source, metadata={"tags": tags} if (tags := _tags(cell)) else {})
        if number < len(outputs) and KEPT in tags:
            made.outputs = [_text(o) for o in outputs[number].outputs if o.get("name") != "stderr"]
            made.execution_count = number + 1
            for output in made.outputs:
                if "execution_count" in output:
                    output["execution_count"] = number + 1
        cells.append(made)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def _text(output):
    """An output with text only."""
    if "data" in output:
        output.data = {kind: value for kind, value in output.data.items() if kind == "text/plain"}
        output.metadata = {}
    return output


def same_code(path: Path) -> bool:
    """Whether the stored quick run is one of the notebook as it is."""
    if not place(path).exists():
        return False
    stored = nbformat.read(place(path), as_version=4)
    return written(copy(path, stored)) == place(path).read_text(encoding="utf-8")


def written(notebook) -> str:
    """A notebook's text."""
    return nbformat.writes(notebook, indent=1) + "\n"


def execute(path: Path) -> None:
    """Run a notebook with its quick defaults and store its copy. Raises nbclient's errors."""
    from nbclient import NotebookClient

    os.environ["COMPENDIUM_STATIC"] = "1"  # as nbval will have it

    ran = copy(path)
    NotebookClient(
        ran, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    place(path).parent.mkdir(parents=True, exist_ok=True)
    place(path).write_text(written(copy(path, ran)), encoding="utf-8")


def main(arguments: list[str]) -> int:
    paths = [Path(a).resolve() for a in arguments if a != "--check"] or sorted(NOTEBOOKS.rglob("[0-9]*.ipynb"))
    if "--check" in arguments:
        stale = [path for path in paths if not same_code(path)]
        for path in stale:
            print(f"the quick run is of other code: {path.relative_to(ROOT)}")
        return int(bool(stale))
    failed = []
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.relative_to(NOTEBOOKS)} ...", flush=True)
        try:
            execute(path)
        except Exception as error:  # of a cell, or of the kernel: the others can still run
            failed.append(path)
            said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            print(f"failed: {path.relative_to(NOTEBOOKS)}: {said}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
