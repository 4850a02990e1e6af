"""Units of long work: what is finished is kept, found again, and gives the bytes of an undisturbed run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compendium import files, units
from compendium.tabular import suite
from compendium.tabular.__main__ import main as tabular
from compendium.tabular.studies import comparison, learning_rates
from compendium.unlearning import __main__ as command
from compendium.unlearning.studies import unlearned

FLOATS = [0.1, 1 / 3, 1e-300, np.nextafter(1, 2)]


@pytest.fixture(autouse=True)
def _same_code(request, monkeypatch):
    """Units are of one code, even while it is being edited."""
    if "other_settings" not in request.node.name:
        monkeypatch.setattr(units, "key", lambda *_: "key")


def noted(folder, i, fail=None):
    """Leaves a trace of each call; the unit that is told ends in a failure, or takes its process along."""
    with open(Path(folder) / str(i), "a") as file:
        file.write("x")
    if fail == "die" and i == 2:
        os._exit(9)
    if fail and i == 2:
        raise ValueError("nothing to learn from")
    return {"i": i, "table": pd.DataFrame({"value": FLOATS}, index=[3, 1, 2, 0])}


def calls(folder) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in Path(folder).glob("[0-9]")}


@pytest.mark.parametrize(("fail", "processes"), [("raise", 1), ("die", 2)])
def test_a_unit_that_fails_loses_no_other(tmp_path, processes, fail):
    seen, jobs = tmp_path / "seen", [(str(tmp_path / "seen"), i) for i in range(4)]
    seen.mkdir()
    wrong = pytest.raises((ValueError, units.Lost), match=r"nothing to learn|a worker was killed.* lower processes")
    with wrong, units.beside(tmp_path / "out", "settings") as store:
        unlearned.everywhere(Fragile(fail), jobs, processes=processes, store=store)
    kept = [pickle.loads(path.read_bytes())["i"] for path in (tmp_path / ".out.units").glob("*.pickle")]
    assert kept
    assert 2 not in kept
    with units.beside(tmp_path / "out", "settings") as store:
        found = unlearned.everywhere(Fragile(None), jobs, processes=1, store=store)
    assert all(calls(seen)[str(i)] == 1 for i in kept), "a finished unit was made again"
    assert [unit["i"] for unit in found] == [0, 1, 2, 3]
    assert all(unit["table"].equals(found[0]["table"]) and unit["table"].value.tolist() == FLOATS for unit in found)
    assert not (tmp_path / ".out.units").exists()


class Fragile:
    """`noted`, under one name whether or not it fails."""

    def __init__(self, fail):
        self.fail, self.__qualname__ = fail, "noted"

    def __call__(self, *job):
        return noted(*job, self.fail)


def test_other_settings_inputs_or_broken_files_are_not_taken_for_finished(tmp_path):
    file = tmp_path / "input.csv"
    file.write_text("a\n1\n")
    store = tmp_path / "store"
    store.mkdir()
    assert units.once(store, divmod, 7, 2) == units.once(store, divmod, 7, 2) == (3, 1)
    assert units.once(store, divmod, 8, 2) == (4, 0)
    assert len(list(store.glob("*.pickle"))) == 2
    for path in store.glob("*.pickle"):
        path.write_bytes(pickle.dumps(1)[:2])
    assert units.once(store, divmod, 7, 2) == (3, 1)
    assert units.once(None, divmod, 7, 2) == (3, 1)
    key = units.key({"steps": 1}, file)
    assert key == units.key({"steps": 1}, file) != units.key({"steps": 2}, file)
    file.write_text("a\n2\n")
    assert key != units.key({"steps": 1}, file)


def test_results_take_no_foreign_folders_place(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link", tmp_path / "thesis.txt"):
        with pytest.raises(files.FolderError):
            comparison.run(
                comparison.jobs(seeds=[0], sets=["wine"], fair=[], methods=["constant"], fair_methods=[]), out=out
            )
    with pytest.raises(files.FolderError, match="is a folder"):
        learning_rates.search(tmp_path, sets=["tae"], seeds=[0], rates={}, rows=10, asked=10, members=1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_study_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    jobs = comparison.jobs(
        seeds=[0, 1],
        sets=["wine"],
        fair=["simulated"],
        methods=["constant", "logistic"],
        fair_methods=["constant"],
        rows=60,
        asked=40,
    )
    comparison.run(jobs, processes=1, out=tmp_path / "whole", progress=False)
    split, seen = suite.split, []

    def interrupted(*arguments, **options):
        seen.append(options["seed"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return split(*arguments, **options)

    monkeypatch.setattr(suite, "split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison.run(jobs, processes=1, out=tmp_path / "cut", progress=False)
    assert not (tmp_path / "cut").exists()
    comparison.run(jobs, processes=1, out=tmp_path / "cut", progress=False)
    assert len(seen) == 3 + 2, "a finished split was made again"
    for path in (tmp_path / "whole").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_a_search_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    given = dict(sets=["a", "b"], seeds=[0, 1], rates={}, rows=10, asked=10, members=1, processes=1)
    monkeypatch.setattr(suite, "DEVELOPMENT", dict.fromkeys("ab"))
    seen = []

    def one(name, seed, **limits):
        seen.append((name, seed))
        if len(seen) == 4:
            raise MemoryError
        return pd.DataFrame([{"set": name, "seed": seed, "log-loss": 1 / 3}])

    monkeypatch.setattr(learning_rates, "one", one)
    with pytest.raises(MemoryError):
        learning_rates.search(tmp_path / "cut.csv", **given)
    learning_rates.search(tmp_path / "cut.csv", **given)
    learning_rates.search(tmp_path / "whole.csv", **given)
    assert seen[:5] == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 1)]
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob(".*"))


RUN = dict(settings={}, limits={}, options={}, stored={"others": ["nf4"]}, inside=[], processes=1)


def studied(method, subject, settings, **options):
    key = {"method": method, "weights": "float32", "kind": "forget", "relation": "r", "subject": "s"}
    return {
        "answers": pd.DataFrame([{**key, "correct": True, "logprob": -settings["learning_rate"] / 3}]),
        "facts": pd.DataFrame([{"domain": "d", "seed": 0, "method": method, "edited": 1 / 3}]),
        "relearning": pd.DataFrame(),
    }


def test_methods_that_are_done_outlive_one_that_fails(tmp_path, monkeypatch):
    rate, seen = {"GA": 1e-3, "NPO": 1e-3, "RMU": 1e-3}, []
    monkeypatch.setattr(unlearned, "subject", lambda *_: None)

    def fragile(method, *arguments, **options):
        seen.append(method)
        if seen.count("RMU") == 1 and method == "RMU":
            raise RuntimeError("out of memory")
        return studied(method, *arguments, **options)

    monkeypatch.setattr(unlearned.evaluation, "study", fragile)
    with pytest.raises(RuntimeError, match="out of memory"):
        unlearned.run("d", 0, rates=rate, out=tmp_path / "cut", **RUN)
    assert not (tmp_path / "cut").exists()
    unlearned.run("d", 0, rates=rate, out=tmp_path / "cut", **RUN)
    assert seen == ["none", "GA", "NPO", "RMU", "RMU"]
    unlearned.run("d", 0, rates=rate, out=tmp_path / "whole", **RUN)
    for name in unlearned.TABLES:
        assert (tmp_path / "cut" / f"{name}.csv").read_bytes() == (tmp_path / "whole" / f"{name}.csv").read_bytes()
    (tmp_path / "cut" / "notes.txt").write_text("mine")
    with pytest.raises(files.FolderError, match=r"notes\.txt"):
        unlearned.run("d", 0, rates=rate, out=tmp_path / "cut", **RUN)


@pytest.mark.parametrize(
    ("text", "rates_csv", "message"),
    [
        ("seeds: [0]\n", "", "unknown setting 'seeds'"),
        ("settings: {}\n", "", "is missing"),
        ("{}", "", "is missing"),
        (None, "method,rate\nGA,1\n", "lacks column 'learning_rate'"),
        (None, "method,learning_rate\nGB,1\n", "unknown method 'GB'"),
        (None, "method,learning_rate\nGA,-1\n", "must be a positive number"),
        (None, "method,learning_rate\nGA,\n", "must be a positive number"),
        (None, "method,learning_rate\nGA,fast\n", "must be a positive number"),
    ],
)
def test_bad_settings_of_runs_end_in_one_line(tmp_path, text, rates_csv, message):
    table, file = tmp_path / "rates.csv", tmp_path / "runs.yaml"
    table.write_text(rates_csv)
    whole = f"rates: {table}\nsettings: {{}}\nlimits: {{}}\noptions: {{}}\nstored: {{others: [nf4]}}\ninside: []\n"
    file.write_text(whole if text is None else text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        command.main(["runs", str(file), "country_capital-Europe", "0"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("study", "seeds: 2020-01-01\n", "seeds is"),
        ("study", "processes: two\n", "processes is 'two'"),
        ("study", "seeds: [0]\nsets: [wine]\nfair: []\nmethods: [logistik]\nfair_methods: []\n", "mean 'logistic'?"),
        ("study", "seeds: [0]\nsets: [wien]\nfair: []\nmethods: [logistic]\nfair_methods: []\n", "mean 'wine'?"),
        ("study", "seeds: [0]\nsets: [wine]\nfair: []\nmethods: [constant]\nfair_methods: []\nrows: 0\n", "rows is 0"),
        ("study", "seeds: [-1]\nsets: [wine]\nfair: []\nmethods: [constant]\nfair_methods: []\n", "seed -1"),
        ("study", "seeds: []\nsets: [wine]\nfair: []\nmethods: [constant]\nfair_methods: []\n", "nothing to study"),
        ("rates", "sets: all\nseeds: [0]\nrates: {sft: [.nan]}\nrows: 9\nasked: 9\nmembers: 1\n", "rates is"),
        ("rates", "sets: all\nseeds: [0]\nrates: {sft: [-1.0]}\nrows: 9\nasked: 9\nmembers: 1\n", "positive number"),
        ("rates", "sets: all\nseeds: [0]\nrates: {stf: [1.0]}\nrows: 9\nasked: 9\nmembers: 1\n", "unknown strategy"),
    ],
)
def test_bad_settings_of_tables_end_in_one_line(tmp_path, name, text, message):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        tabular([name, str(file), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [file]
