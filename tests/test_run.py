"""The notebook runner: refuses before it starts, keeps what was there, names what failed."""

import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from compendium import run


def notebook(
    tmp_path, body="print(alpha)", defaults='alpha = 0.1\nseeds = [0]\nflag = False\nname = "x"\nsteps = 3\nout = None'
):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell(defaults, metadata={"tags": ["parameters"]}),
        new_markdown_cell("## The step"),
        new_code_cell(body),
    ]
    path = tmp_path / "demo.ipynb"
    nbformat.write(
        new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
        ),
        path,
    )
    return path


def execute(path, given, tmp_path):
    run.run(path, given, tmp_path / "figures/demo", tmp_path / "executed/demo.ipynb")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alfa": 0.2}, "unknown parameter 'alfa': did you mean 'alpha'?"),
        ({"zzz": 0.2}, "unknown parameter 'zzz': it has: alpha, seeds, flag, name, steps"),
        ({"alpha": "1e-4"}, r"'alpha' is '1e-4' \(str\), but its default is 0.1 \(float\)"),
        ({"flag": 1}, "'flag' is 1"),
        ({"steps": 2.5}, "'steps' is 2.5"),
        ({"steps": True}, "'steps' is True"),
        ({"seeds": 3}, "'seeds' is 3"),
        ({"seeds": ["a"]}, "'seeds' is "),
        ({"name": None}, "'name' is None"),
        ({"out": "x"}, "use --out"),
    ],
)
def test_bad_parameters_are_refused_before_a_kernel_starts(tmp_path, given, message):
    with pytest.raises(run.RunError, match=message):
        execute(notebook(tmp_path), given, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_good_parameters_pass():
    declared = {"alpha": 0.1, "seeds": [0], "flag": False, "name": "x", "anything": None, "empty": []}
    run.validate({"alpha": 1, "seeds": [1, 2], "flag": True, "name": "y", "anything": [1], "empty": ["a"]}, declared)


def test_the_parameters_cell_holds_literals_only(tmp_path):
    with pytest.raises(run.RunError, match="line 2: only `name = literal`"):
        execute(notebook(tmp_path, defaults="a = 1\nb = range(3)"), {}, tmp_path)


def test_yaml_reads_numbers_as_dvc_does(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("a: 1e-4\nb: [1.0e-6, 3]\nc: no\n")
    assert run.read_yaml(path) == {"a": 1e-4, "b": [1e-6, 3], "c": "no"}
    path.write_text("- 1\n")
    with pytest.raises(run.RunError, match="`name: value` lines"):
        run.read_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(run.RunError, match="not valid YAML"):
        run.read_yaml(path)
    with pytest.raises(run.RunError, match="no parameters file"):
        run.read_yaml(tmp_path / "none.yaml")


def test_the_command_line_refuses_a_misspelt_parameter_within_five_seconds(tmp_path):
    path = notebook(tmp_path)
    (tmp_path / "p.yaml").write_text("alhpa: 0.2\n")
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "compendium.run", path, tmp_path / "p.yaml"], capture_output=True, text=True
    )
    assert time.time() - started < 5
    assert done.returncode != 0
    assert done.stderr.strip() == "error: unknown parameter 'alhpa': did you mean 'alpha'?"


def test_success_then_failure_keeps_the_results_and_names_the_cell(tmp_path):
    body = "import os, time\nopen(os.path.join(out, 'r.csv'), 'w').write(str(alpha))\nprint(alpha, out)"
    execute(notebook(tmp_path, body), {"alpha": 0.5}, tmp_path)
    first = (tmp_path / "executed/demo.ipynb").read_bytes()
    assert (tmp_path / "figures/demo/r.csv").read_text() == "0.5"
    assert b"partial" not in (tmp_path / "executed/demo.ipynb").read_bytes().replace(b"/.demo.partial\\n", b"")
    execute(notebook(tmp_path, body), {"alpha": 0.5}, tmp_path)
    assert (tmp_path / "executed/demo.ipynb").read_bytes() == first
    with pytest.raises(
        run.RunError, match=r"failed in cell 3 \(under 'The step'\): ZeroDivisionError: division by zero"
    ):
        execute(notebook(tmp_path, body + "\n1 / 0"), {"alpha": 0.7}, tmp_path)
    assert (tmp_path / "figures/demo/r.csv").read_text() == "0.5"
    assert (tmp_path / "executed/demo.failed.ipynb").exists()
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["demo"]


def test_normalising_removes_what_differs_between_runs():
    def executed(seconds):
        cell = new_code_cell("x", metadata={"tags": ["a"], "execution": {"iopub.execute_input": seconds}})
        cell.outputs = [
            new_output("stream", name="stderr", text=f"{seconds} it/s"),
            new_output("stream", name="stdout", text="42\n"),
        ]
        info = new_code_cell(
            "provenance()", metadata={"tags": ["provenance"]}, outputs=[new_output("stream", text=seconds)]
        )
        return new_notebook(cells=[cell, info], metadata={"papermill": {"duration": seconds}})

    one, two = (nbformat.writes(run.normalise(executed(s))) for s in ("1.0", "2.0"))
    assert one == two
    assert "42" in one
