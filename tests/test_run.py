"""The notebook runner: refuses before it starts, keeps what was there, names what failed."""

import json
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from compendium import run, settings


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
    with pytest.raises(settings.SettingsError, match=message):
        execute(notebook(tmp_path), given, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_good_parameters_pass():
    declared = {"alpha": 0.1, "seeds": [0], "flag": False, "name": "x", "anything": None, "empty": []}
    settings.validate(
        {"alpha": 1, "seeds": [1, 2], "flag": True, "name": "y", "anything": [1], "empty": ["a"]}, declared
    )


def test_the_parameters_cell_holds_literals_only(tmp_path):
    with pytest.raises(run.RunError, match="line 2: only `name = literal`"):
        execute(notebook(tmp_path, defaults="a = 1\nb = range(3)"), {}, tmp_path)


def test_yaml_reads_numbers_as_dvc_does(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("a: 1e-4\nb: [1.0e-6, 3]\nc: no\n")
    assert settings.read(path) == {"a": 1e-4, "b": [1e-6, 3], "c": "no"}
    path.write_text("- 1\n")
    with pytest.raises(settings.SettingsError, match="`name: value` lines"):
        settings.read(path)
    path.write_text("a: [1\n")
    with pytest.raises(settings.SettingsError, match="not valid YAML"):
        settings.read(path)
    with pytest.raises(settings.SettingsError, match="no parameters file"):
        settings.read(tmp_path / "none.yaml")


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


def test_a_folder_that_no_run_made_is_never_replaced(tmp_path, monkeypatch):
    path = str(notebook(tmp_path, "open(f'{out}/r.csv', 'w').write('1')"))
    (tmp_path / "work/kept").mkdir(parents=True)
    (tmp_path / "work/kept/thesis.tex").write_text("years")
    (tmp_path / "work/link").symlink_to(tmp_path / "work/kept")
    monkeypatch.chdir(tmp_path / "work")
    for out in (".", "kept", "link", "kept/thesis.tex", ".."):
        with pytest.raises(SystemExit) as refused:
            run.main([path, "--out", out, "--executed", "copy.ipynb"])
        assert str(refused.value).startswith("error: ")
        assert len(str(refused.value).splitlines()) == 1
    assert (tmp_path / "work/kept/thesis.tex").read_text() == "years"
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["kept", "link"]
    run.main([path, "--out", "new", "--executed", "copy.ipynb"])
    assert (tmp_path / "work/new/r.csv").read_text() == "1"
    (tmp_path / "work/new/notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"holds notes.txt, which no run wrote"):
        run.main([path, "--out", "new", "--executed", "copy.ipynb"])
    assert (tmp_path / "work/new/notes.txt").read_text() == "mine"


def test_an_executed_copy_replaces_no_other_file(tmp_path):
    path = notebook(tmp_path)
    before = path.read_bytes()
    (tmp_path / "other.ipynb").write_text("mine")
    for copy in (path, tmp_path / "other.ipynb", tmp_path):
        with pytest.raises(run.RunError, match="--executed"):
            run.run(path, {}, tmp_path / "figures", copy)
    assert path.read_bytes() == before
    assert (tmp_path / "other.ipynb").read_text() == "mine"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys\nsys.exit()", "left early"),
        ("raise SystemExit(0)", "left early"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("import os\nos._exit(0)", "Kernel died"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "Kernel died"),
    ],
)
def test_an_early_end_is_no_success(tmp_path, body, said):
    whole = "open(f'{out}/half.csv', 'w').write('1')\n"
    execute(notebook(tmp_path, whole + "open(f'{out}/other.csv', 'w').write('2')"), {}, tmp_path)
    path = notebook(tmp_path, f"{whole}print('so far')\n{body}")
    ends = nbformat.read(path, 4)
    ends.cells.append(new_code_cell("open(f'{out}/other.csv', 'w').write('3')"))
    nbformat.write(ends, path)
    with pytest.raises(run.RunError, match=rf"failed in cell \d \(under 'The step'\): .*{said}"):
        execute(path, {}, tmp_path)
    assert (tmp_path / "figures/demo/other.csv").read_text() == "2"
    assert "so far" in (tmp_path / "executed/demo.failed.ipynb").read_text()
    assert (tmp_path / "executed/demo.ipynb").exists()


def test_results_are_not_replaced_by_none(tmp_path):
    execute(notebook(tmp_path, "open(f'{out}/r.csv', 'w').write('1')"), {}, tmp_path)
    with pytest.raises(run.RunError, match="wrote nothing into `out`"):
        execute(notebook(tmp_path, "print(1)"), {}, tmp_path)
    no_folder = notebook(tmp_path, "print(alpha)", defaults="alpha = 0.1")
    execute(no_folder, {}, tmp_path)
    assert (tmp_path / "figures/demo/r.csv").read_text() == "1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "anything", "2024-05-01"], "parameter 'anything' is the date 2024-05-01"),
        (["-p", "anything", "2024-05-01 10:00:00"], "parameter 'anything' is the date"),
        (["-p", "anything", "{a: [2024-05-01]}"], "parameter 'anything' is the date"),
        (["-p", "anything", "2024-13-45"], "is not valid YAML"),
        (["-p", "seeds", "[1"], "-p seeds '[1' is not valid YAML"),
        (["-p", "anything", "!!set {a}"], "parameter 'anything' is of type set"),
        (["-p", "anything", "!!binary aGk="], "parameter 'anything' is of type bytes"),
        (["-p", "anything", "&a [*a]"], "is not valid YAML"),
        (["-p", "anything", "!!python/name:os.system"], "is not valid YAML"),
        (["latin.yaml"], "latin.yaml is not in UTF-8 (byte 7)"),
        (["numbers.yaml"], "a parameter's name must be text, not 3"),
        (["."], "cannot read"),
        (["none.yaml"], "no parameters file none.yaml"),
    ],
)
def test_bad_values_are_refused_in_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    path = notebook(tmp_path, defaults="anything = None\nseeds = [0]\nout = None")
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    (tmp_path / "numbers.yaml").write_text("3: 4\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run.main(
            [str(path), *arguments, "--out", str(tmp_path / "figures"), "--executed", str(tmp_path / "copy.ipynb")]
        )
    assert str(stopped.value).startswith("error: ")
    assert said in str(stopped.value)
    assert len(str(stopped.value).splitlines()) == 1
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("defaults", ["%load_ext x\na = 1", "!ls", "a = 1\n%time", "a =", "a, b = 1, 2", "a: int = 3"])
def test_a_parameters_cell_that_is_not_plain_is_refused_in_one_line(tmp_path, defaults):
    with pytest.raises(run.RunError, match=r"^parameters cell, line \d: only `name = literal` is allowed there$"):
        execute(notebook(tmp_path, defaults=defaults), {}, tmp_path)


@pytest.mark.parametrize("content", [b"", b"print(1)", b"{}", b"[]", "{'é'}".encode("latin-1"), b'{"nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "x.ipynb").write_bytes(content)
    for path in (tmp_path / "x.ipynb", tmp_path):
        with pytest.raises(run.RunError) as refused:
            execute(path, {}, tmp_path)
        assert len(str(refused.value).splitlines()) == 1


def test_a_notebook_without_language_or_kernel_runs_and_its_provenance_is_json(tmp_path):
    path = notebook(tmp_path, "print(alpha)", defaults="alpha = 0.1\npair = (1, 2)")
    bare = nbformat.read(path, 4)
    bare.metadata = {}
    nbformat.write(bare, path)
    execute(path, {"alpha": float("nan"), "pair": [3, 4]}, tmp_path)
    refuse = lambda name: pytest.fail(f"{name} is not JSON")
    text = (tmp_path / "executed/demo.provenance.json").read_text()
    assert json.loads(text, parse_constant=refuse)["parameters"] == {"alpha": "nan", "pair": [3, 4]}


def test_executed_copies_do_not_depend_on_how_fast_a_cell_prints(tmp_path):
    fast = "print('a')\nprint('b')\nobject()"
    slow = "import sys, time\nprint('a', flush=True); time.sleep(0.6); print('.', file=sys.stderr, flush=True)\n"
    copies = []
    for body in (fast, slow + "time.sleep(0.6)\nprint('b')\nobject()"):
        execute(notebook(tmp_path, body), {}, tmp_path)
        copies.append(nbformat.read(tmp_path / "executed/demo.ipynb", 4).cells[-1].outputs)
    assert copies[0] == copies[1]
    assert [output.output_type for output in copies[0]] == ["stream", "execute_result"]


def refused(*arguments):
    with pytest.raises(SystemExit) as stopped:
        run.main([str(argument) for argument in arguments])
    assert str(stopped.value).startswith("error: ")
    assert len(str(stopped.value).splitlines()) == 1
    return str(stopped.value)


def no_kernel(monkeypatch):
    monkeypatch.setattr(run, "execute", lambda *_: pytest.fail("it was run"))


def test_results_of_another_notebook_are_not_replaced(tmp_path, monkeypatch):
    write = "open(f'{out}/r.csv', 'w').write('1')"
    execute(notebook(tmp_path, write), {}, tmp_path)
    execute(notebook(tmp_path, write), {}, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    other = notebook(tmp_path / "elsewhere", write)
    no_kernel(monkeypatch)
    home = run.FIGURES / "00_scorecard"
    for out in (tmp_path / "figures/demo", *([home] if home.exists() else [])):
        assert "holds the results of" in refused(other, "--out", out, "--executed", tmp_path / "c.ipynb")


def test_what_would_fail_in_the_end_is_refused_before_a_kernel_starts(tmp_path, monkeypatch):
    path = notebook(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine.failed.ipynb").write_text("mine")
    (tmp_path / "other.ipynb").write_text("mine")
    (tmp_path / "other.provenance.json").write_text("mine")
    no_kernel(monkeypatch)
    for copy in ("out/c.ipynb", "out", "file/c.ipynb", "x" * 300, "mine.ipynb", "other.ipynb"):
        refused(path, "--out", tmp_path / "out", "--executed", tmp_path / copy)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine.failed.ipynb").read_text() == "mine"
    plain = notebook(tmp_path, defaults="alpha = 1")
    assert "omit --out" in refused(plain, "--out", tmp_path / "out", "--executed", tmp_path / "c.ipynb")


def test_a_notebook_that_removes_its_folder_replaces_nothing(tmp_path):
    execute(notebook(tmp_path, "open(f'{out}/r.csv', 'w').write('1')"), {}, tmp_path)
    with pytest.raises(run.RunError, match="removed"):
        execute(notebook(tmp_path, "import shutil\nshutil.rmtree(out)"), {}, tmp_path)
    assert (tmp_path / "figures/demo/r.csv").read_text() == "1"


@pytest.mark.parametrize(
    "metadata",
    [{"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}, {"language_info": {"name": "julia"}}],
)
def test_notebooks_in_other_languages_are_refused(tmp_path, metadata):
    path = notebook(tmp_path)
    other = nbformat.read(path, 4)
    other.metadata = nbformat.from_dict(metadata)
    nbformat.write(other, path)
    with pytest.raises(run.RunError, match="only notebooks in Python run here"):
        execute(path, {}, tmp_path)


def test_lists_of_several_types_and_yaml_that_says_what_is_wrong(tmp_path):
    declared = {"several": [1, "a"], "nested": [[1], ["a"]]}
    settings.validate({"several": ["b", 2, 3], "nested": [["c"], [4]]}, declared)
    with pytest.raises(settings.SettingsError, match="'several' is"):
        settings.validate({"several": [1.5]}, declared)
    with pytest.raises(settings.SettingsError, match=r'found duplicate key "a" .* \(line 2\)$'):
        settings.parse("a: 1\na: 2\n", "p.yaml")
    for defaults in ("a = " + "-" * 9000 + "1", "a = 1\0"):
        with pytest.raises(run.RunError, match=r"^parameters cell"):
            execute(notebook(tmp_path, defaults=defaults), {}, tmp_path)


def test_executed_copies_hold_no_random_names(tmp_path):
    def executed(name):
        data = {"text/plain": "bar", "application/vnd.jupyter.widget-view+json": {"model_id": name}}
        shown = {
            "application/json": {"a": [f"<X at 0x{name}>"], "n": 1},
            "text/html": f'{name}/made <th id="T_{name[-5:]}_row0">',
        }
        outputs = [new_output("display_data", data=data), new_output("display_data", data=shown)]
        return new_notebook(cells=[new_code_cell("x", outputs=outputs)])

    one, two = (nbformat.writes(run.normalise(executed(n), {n: "figures"})) for n in ("7f0000001111", "7f0000002222"))
    assert one == two
    assert "figures/made" in one
    copies = []
    for _ in range(2):
        execute(notebook(tmp_path, "import os\nprint(out, os.path.dirname(out))"), {}, tmp_path)
        copies.append((tmp_path / "executed/demo.ipynb").read_bytes())
    assert copies[0] == copies[1]


def test_a_run_that_is_told_to_stop_leaves_nothing_half_made(tmp_path):
    body = f"open({str(tmp_path / 'begun')!r}, 'w').close()\nimport time\ntime.sleep(60)"
    command = [sys.executable, "-m", "compendium.run", notebook(tmp_path, body)]
    command += ["--out", tmp_path / "out", "--executed", tmp_path / "executed/demo.ipynb"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    process.terminate()
    assert process.communicate(timeout=60)[1].splitlines()[-1].startswith("interrupted: earlier results are unchanged")
    assert process.returncode == 1
    assert not [p.name for p in tmp_path.iterdir() if "partial" in p.name]
