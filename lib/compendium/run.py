"""Run a parameterised notebook as a pipeline stage.

    python -m compendium.run notebooks/02_unlearning/02_bin_width.ipynb notebooks/02_unlearning/02_bin_width.yaml
    python -m compendium.run notebooks/02_unlearning/02_bin_width.ipynb -p seeds "[0]"

Parameters are checked against the notebook's own `parameters` cell before a kernel starts: an unknown name or a wrong
type stops the run. Results are written to a scratch folder that replaces `figures/<section>/<notebook>/` only when the
last cell has run, so a failure or an interruption leaves the earlier results where they were. The executed copy goes
to `executed/<section>/<notebook>.ipynb`, stripped of everything that differs between identical runs.
"""

import argparse
import ast
import json
import os
import shutil
import sys
import time
from difflib import get_close_matches
from pathlib import Path

import nbformat
from ruamel.yaml import YAML, YAMLError

from compendium.paths import EXECUTED, FIGURES, NOTEBOOKS, ROOT, relative

KERNEL = "python3"
RESERVED = "out"  # the folder for results, set by this runner


class RunError(Exception):
    """A run that cannot start or did not finish; the message says where and what to do."""


def parameters(notebook) -> dict:
    """Names and default values in the notebook's `parameters` cell, which holds literals only. Raises RunError."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise RunError("the notebook needs exactly one code cell with the tag 'parameters'")
    found = {}
    for node in ast.parse(tagged[0].source).body:
        try:
            (target,) = node.targets
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            raise RunError(f"parameters cell, line {node.lineno}: only `name = literal` is allowed there") from None
    return found


def matches(value, default) -> bool:
    """Whether `value` may replace `default`: same kind; whole numbers pass as floats; None defaults take anything."""
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, list):
        return isinstance(value, list) and all(matches(item, default[0]) for item in value if default)
    return isinstance(value, type(default))


def validate(given: dict, declared: dict) -> None:
    """Raise RunError, with the nearest valid name or the expected type, unless `given` fits `declared`."""
    for name, value in given.items():
        if name == RESERVED:
            raise RunError(f"'{RESERVED}' is set by the runner: use --out")
        if name not in declared:
            names = [known for known in declared if known != RESERVED]
            close = get_close_matches(name, names, 1, 0.3)
            hint = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
            raise RunError(f"unknown parameter '{name}': {hint}")
        if not matches(value, declared[name]):
            raise RunError(
                f"parameter '{name}' is {value!r} ({type(value).__name__}), but its default is "
                f"{declared[name]!r} ({type(declared[name]).__name__}): give the same type"
            )


def read_yaml(path: Path) -> dict:
    """A flat mapping from a YAML 1.2 file, the dialect DVC reads (so 1e-4 is a number). Raises RunError."""
    try:
        found = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise RunError(f"no parameters file {relative(path)}") from None
    except YAMLError as error:
        raise RunError(f"{relative(path)} is not valid YAML: {str(error).splitlines()[0]}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RunError(f"{relative(path)} must hold `name: value` lines")
    return found


def position() -> str:
    """'[i/N] ' for the DVC stage this process belongs to, by its place in dvc.yaml; empty outside DVC."""
    stage = os.environ.get("DVC_STAGE", "").split("@")[0]
    names = list(read_yaml(ROOT / "dvc.yaml").get("stages", {}))
    return f"[{names.index(stage) + 1}/{len(names)}] " if stage in names else ""


def normalise(notebook, renames: dict[str, str] | None = None):
    """Remove all that differs between identical runs: times, durations, progress bars, the `provenance` output."""
    notebook.metadata = {"kernelspec": {"name": KERNEL, "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{number}"
        for old, new in (renames or {}).items():
            cell.source = cell.source.replace(old, new)
        if cell.cell_type == "code":
            volatile = "provenance" in tags
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not volatile]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    return notebook


def heading(notebook, index: int) -> str:
    """The last markdown heading before cell `index`."""
    texts = [cell.source for cell in notebook.cells[:index] if cell.cell_type == "markdown"]
    lines = "\n".join(texts).split("\n")
    return next((line.lstrip("# ") for line in reversed(lines) if line.startswith("#")), "the beginning")


def run(path: Path, given: dict, out: Path, executed: Path) -> None:
    """Validate, execute, normalise and put the results in place. Raises RunError; earlier results stay as they were."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise RunError(f"no notebook {relative(path)}") from None
    declared = parameters(notebook)
    validate(given, declared)

    import papermill  # slow to import, and not needed to refuse a bad parameter

    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    executed.parent.mkdir(parents=True, exist_ok=True)
    failed = executed.with_suffix(".failed.ipynb")
    values = given | ({RESERVED: str(scratch)} if RESERVED in declared else {})
    started = time.time()
    try:
        papermill.execute_notebook(
            str(path), str(failed), parameters=values, kernel_name=KERNEL, cwd=str(path.parent),
            progress_bar={"disable": None}, stderr_file=None,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        ran = nbformat.read(failed, as_version=4)
        index = next(i for i, c in enumerate(ran.cells) if any(o.output_type == "error" for o in c.get("outputs", [])))
        raise RunError(
            f"{relative(path)} failed in cell {error.exec_count} (under '{heading(ran, index)}'): "
            f"{error.ename}: {error.evalue.strip().splitlines()[0] if error.evalue.strip() else ''}\n"
            f"the executed copy with the traceback is {relative(failed)}; earlier results are unchanged"
        ) from None
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        failed.unlink(missing_ok=True)
        raise
    from compendium import report

    ran = normalise(nbformat.read(failed, as_version=4), {str(scratch): relative(out)})
    report.write(executed, nbformat.writes(ran) + "\n")
    failed.unlink()
    facts = {"parameters": declared | given, "seconds": round(time.time() - started, 1), **report.provenance()}
    facts.pop(RESERVED, None)
    report.write(executed.with_suffix(".provenance.json"), json.dumps(facts, indent=1, default=str) + "\n")
    earlier = out.with_name(f".{out.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if out.exists():
        os.replace(out, earlier)
    os.replace(scratch, out)
    shutil.rmtree(earlier, ignore_errors=True)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.run", description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("yaml", type=Path, nargs="*", help="flat parameter files; later ones win")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter")
    parser.add_argument("--out", type=Path, help="folder for figures and tables (default: beside the others)")
    parser.add_argument("--executed", type=Path, help="the executed copy (default: under executed/)")
    given = parser.parse_args(argv)
    notebook = given.notebook.resolve()
    inside = notebook.is_relative_to(NOTEBOOKS)
    name = notebook.relative_to(NOTEBOOKS).with_suffix("") if inside else Path(notebook.stem)
    started = time.time()
    since = float(os.environ.get("COMPENDIUM_STARTED") or started)
    try:
        where = position()
        values = {}
        for path in given.yaml:
            values |= read_yaml(path)
        for key, text in given.p:
            values[key] = YAML(typ="safe", pure=True).load(text)
        print(f"{where}{name} ...", flush=True)
        run(
            notebook,
            values,
            (given.out or FIGURES / name).resolve(),
            (given.executed or EXECUTED / name.with_suffix(".ipynb")).resolve(),
        )
    except RunError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: earlier results are unchanged; run again to resume")
    now = time.time()
    print(f"{where}{name} done in {now - started:.0f} s (elapsed {now - since:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
