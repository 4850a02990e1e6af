"""Run a parameterised notebook as a pipeline stage.

    python -m compendium.run notebooks/02_unlearning/02_bin_width.ipynb notebooks/02_unlearning/02_bin_width.yaml
    python -m compendium.run notebooks/02_unlearning/02_bin_width.ipynb -p seeds "[0]"

Parameters are checked against the notebook's own `parameters` cell before a kernel starts: an unknown name or a wrong
type stops the run. Results are written to a scratch folder that replaces `figures/<section>/<notebook>/` only when the
last cell has run, so a failure or an interruption leaves the earlier results where they were. The executed copy goes
to `executed/<section>/<notebook>.ipynb`, without what differs between identical runs, with the numbers of its text
filled in; `.ran` beside it says that it was run here.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import nbformat

from compendium import files, settings, workers
from compendium.executed import KERNEL, beside, check_copy, check_out, normalise, ran_mark
from compendium.paths import EXECUTED, FIGURES, NOTEBOOKS, ROOT, relative

BAR = "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}"


class RunError(Exception):
    """A run that cannot start or did not finish; the message says where and what to do."""


def read_notebook(path: Path):
    """The notebook in a file. Raises RunError."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise RunError(f"no notebook {relative(path)}") from None
    except OSError as error:
        raise RunError(f"cannot read {relative(path)}: {error.strerror}") from None
    except Exception as error:  # nbformat raises whatever its parser and its validator do
        raise RunError(f"{relative(path)} is not a notebook: {_first_line(error)}") from None
    for place, key in (("kernelspec", "language"), ("language_info", "name")):
        language = str(notebook.metadata.get(place, {}).get(key) or "python")
        if "python" not in language.lower():
            raise RunError(f"{relative(path)} is in {language}: only notebooks in Python run here")
    return notebook


def _first_line(error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def parameters(notebook) -> dict:
    """Names and default values in the notebook's `parameters` cell, which holds literals only. Raises RunError."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise RunError("the notebook needs exactly one code cell with the tag 'parameters'")
    only = "only `name = literal` is allowed there"
    try:
        body = ast.parse(tagged[0].source).body
    except SyntaxError as error:  # also %magic and !command, which are not Python
        raise RunError(f"parameters cell, line {error.lineno or 1}: {only}") from None
    except (ValueError, RecursionError, MemoryError):  # zero bytes, nesting without end
        raise RunError(f"parameters cell: {only}") from None
    found = {}
    for node in body:
        try:
            (target,) = node.targets
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError, RecursionError):
            raise RunError(f"parameters cell, line {node.lineno}: {only}") from None
    return found


def position() -> str:
    """'[i/N] ' for the DVC stage this process belongs to, by its place in dvc.yaml; empty outside DVC."""
    stage = os.environ.get("DVC_STAGE", "").split("@")[0]
    if not stage:
        return ""
    names = list(settings.read(ROOT / "dvc.yaml").get("stages", {}))
    return f"[{names.index(stage) + 1}/{len(names)}] " if stage in names else ""


def heading(notebook, index: int) -> str:
    """The last markdown heading before cell `index`."""
    texts = [cell.source for cell in notebook.cells[:index] if cell.cell_type == "markdown"]
    lines = "\n".join(texts).split("\n")
    return next((line.lstrip("# ") for line in reversed(lines) if line.startswith("#")), "the beginning")


def execute(path: Path, values: dict, copy: Path, where: str = ""):
    """The executed notebook, every cell of which ran to its end; saved to `copy` as each cell begins and ends.

    where: what the line of progress says before the cell and the time. Raises RunError, naming the cell, for an
    exception, an early exit, a kernel that died or one that cannot be had.
    """
    import nbclient.exceptions  # slow to import, like papermill, and not needed to refuse a bad parameter
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel

    workers.give_way()
    os.environ["COMPENDIUM_STATIC"] = "1"  # sliders stand still: nobody is there to move them
    said = f"the executed copy is {relative(copy)}; earlier results are unchanged"

    def place(ran, index: int) -> str:
        number = sum(cell.cell_type == "code" for cell in ran.cells[: index + 1])
        return f"cell {number} (under '{heading(ran, index)}')"

    try:
        ran = papermill.execute_notebook(
            str(path),
            str(copy),
            parameters=values,
            kernel_name=KERNEL,
            language="python",
            cwd=str(path.parent),
            progress_bar={"disable": None, "leave": False, "desc": where, "bar_format": BAR},  # on a terminal only
            stderr_file=None,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not its warning that cells travel unencrypted
        )
    except papermill.PapermillExecutionError as error:
        ran = read_notebook(copy)
        index = next(i for i, c in enumerate(ran.cells) if any(o.output_type == "error" for o in c.get("outputs", [])))
        what = f"{error.ename}: {error.evalue.strip().splitlines()[0] if error.evalue.strip() else ''}"
        raise RunError(
            f"{relative(path)} failed in {place(ran, index)}: {what}\n"
            f"the executed copy with the traceback is {relative(copy)}; earlier results are unchanged"
        ) from None
    except (nbclient.exceptions.DeadKernelError, nbclient.exceptions.CellTimeoutError) as error:
        ran = read_notebook(copy)
        begun = [i for i, cell in enumerate(ran.cells) if _status(cell) not in (None, "pending")]
        raise RunError(
            f"{relative(path)} failed in {place(ran, begun[-1] if begun else 0)}: {_first_line(error)}; it was killed, "
            f"as when memory runs out, or left by itself\n{said}"
        ) from None
    except NoSuchKernel:
        raise RunError(f"there is no Jupyter kernel {KERNEL!r} here: pip install ipykernel") from None
    except (papermill.exceptions.PapermillException, RuntimeError) as error:
        raise RunError(f"{relative(path)} could not be run: {_first_line(error)}") from None
    for index, cell in enumerate(ran.cells):
        left = any(o.output_type == "error" and o.ename == "SystemExit" for o in cell.get("outputs", []))
        if left or (cell.cell_type == "code" and cell.source.strip() and _status(cell) != "completed"):
            raise RunError(
                f"{relative(path)} failed in {place(ran, index)}: it left early, by sys.exit or the like, and the "
                f"cells after it did not run\n{said}"
            )
    return ran


def _status(cell) -> str | None:
    return cell.metadata.get("papermill", {}).get("status")


def run(path: Path, given: dict, out: Path, executed: Path) -> None:
    """Validate, execute, normalise and put the results in place. Raises RunError; earlier results stay as they were."""
    declared = parameters(read_notebook(path))
    settings.validate(given, declared)
    from compendium import publish, report  # slow to import, and not needed to refuse a bad parameter

    keeps, made, renames = settings.RESERVED in declared, False, {}
    failed, noted = beside(executed)
    try:
        check_copy(path, executed, files.check(out) if keeps else None)
        with files.replaced(out, **check_out(path, out)) if keeps else nullcontext() as scratch:
            executed.parent.mkdir(parents=True, exist_ok=True)
            started = time.time()
            told = given | ({settings.RESERVED: str(scratch)} if keeps else {})
            ran = execute(path, told, failed, f"{position()}{path.stem}")
            facts = {"seconds": round(time.time() - started, 1), **report.provenance()}
            empty = keeps and scratch.is_dir() and not any(scratch.iterdir())
            if empty and {p.name for p in Path(out).glob("*")} - {files.MANIFEST}:
                raise RunError(
                    f"{relative(path)} wrote nothing into `{settings.RESERVED}`: earlier results are unchanged"
                )
        made = keeps
        values = {name: value for name, value in (declared | given).items() if name != settings.RESERVED}
        text = json.dumps(_valid({"parameters": values, **facts}), indent=1, default=str, allow_nan=False) + "\n"
        files.write(noted, text)
        if keeps:
            parent = Path(relative(out)).parent
            renames = {str(scratch): relative(out), str(scratch.parent): str(parent), scratch.parent.name: parent.name}
        copy = normalise(ran, renames)
        other = publish.other_values(path, declared, values)
        for missed in publish.publish(copy, relative(path), out if keeps else None, other):
            print(f"{path.stem}: a number of its text is missing: {missed}", flush=True)
        text = nbformat.writes(copy) + "\n"
        files.write(executed, text)
        files.write(ran_mark(executed), hashlib.sha256(text.encode()).hexdigest() + "\n")
        failed.unlink(missing_ok=True)  # another run of the same notebook may have done so
    except files.FolderError as error:
        raise RunError(str(error)) from None
    except OSError as error:
        where, rest = error.filename or relative(executed), f"; the results are in {relative(out)}" if made else ""
        raise RunError(f"{where} cannot be written: {error.strerror or error}{rest}") from None


def _valid(value):
    """A value as JSON can hold it: numbers that are not finite become text."""
    if isinstance(value, dict):
        return {str(key): _valid(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_valid(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _stop_on(*signals) -> None:
    """Let these signals end the run as Ctrl-C does, which leaves nothing half made."""

    def stop(*_):
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for each in signals:
            if signal.getsignal(each) == signal.SIG_DFL:  # nohup ignores SIGHUP: let it
                signal.signal(each, stop)


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
        _stop_on(signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
        where = position()
        values = {}
        for path in given.yaml:
            values |= settings.read(path)
        for key, text in given.p:
            values[key] = settings.parse(text, f"-p {key} {text!r}")
        if given.out is not None and settings.RESERVED not in parameters(read_notebook(notebook)):
            raise RunError(
                f"{relative(notebook)} has no parameter '{settings.RESERVED}', so it writes no results: omit --out"
            )
        print(f"{where}{name} ...", flush=True)
        run(
            notebook,
            values,
            given.out or FIGURES / name,
            (given.executed or EXECUTED / name.with_suffix(".ipynb")).resolve(),
        )
    except (RunError, settings.SettingsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: earlier results are unchanged; run again to resume")
    now = time.time()
    print(f"{where}{name} done in {now - started:.0f} s (elapsed {now - since:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
