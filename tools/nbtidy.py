"""Bring notebooks into the form they are committed in, so that diffs show changes of content only.

    python tools/nbtidy.py notebooks/*/*.ipynb           # rewrite
    python tools/nbtidy.py --check notebooks/*/*.ipynb   # list files that are not tidy, exit 1

Cells tagged `nbval-check-output` keep their printed text, for nbval to compare; all other outputs, counts and
metadata except tags go. nbval compares a cell only if it has an execution count, so those cells get one.
"""

import sys
from pathlib import Path

import nbformat

KEPT = "nbval-check-output"


def tidy(text: str) -> str:
    """The tidy form of a notebook's JSON."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{number}"
        cell.source = cell.source.rstrip()
        if cell.cell_type != "code":
            continue
        keep = KEPT in tags and cell.execution_count is not None
        cell.outputs = [strip(output) for output in cell.outputs if output.get("name") != "stderr"] if keep else []
        cell.execution_count = number if keep else None
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = number
    return nbformat.writes(notebook, indent=1) + "\n"


def strip(output):
    """An output with text only."""
    if "data" in output:
        output.data = {kind: value for kind, value in output.data.items() if kind == "text/plain"}
        output.metadata = {}
    return output


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    untidy = []
    for path in (Path(a) for a in arguments if a != "--check"):
        text = path.read_text()
        new = tidy(text)
        if new != text:
            untidy.append(path)
            if not check:
                path.write_text(new)
    for path in untidy:
        print(f"{'not tidy' if check else 'tidied'}: {path}")
    return int(check and bool(untidy))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
