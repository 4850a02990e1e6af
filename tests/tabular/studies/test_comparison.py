"""The comparison of methods on tables: what is planned, what a unit measures, what bad settings end in."""

from dataclasses import replace

import numpy as np
import pytest

from compendium import check, units
from compendium.tabular import evaluation, suite
from compendium.tabular.__main__ import main
from compendium.tabular.studies import comparison, when_to_fine_tune

FEW = dict(rows=60, asked=40, members=1)


def test_one_unit_per_method_split_and_set():
    found = comparison.planned(
        seeds=[0, 1],
        sets=["wine", "iris"],
        fair=["simulated"],
        methods=["constant"],
        fair_methods=["logistic"],
        more_sets=["iris"],
        more_methods=["zero-shot"],
        stored="nf4",
    )
    said = [(u["name"], u["seed"], u["method"], u.get("stored"), u["tags"]) for u in found]
    assert said == [
        ("wine", 0, "constant", "nf4", True),
        ("wine", 1, "constant", "nf4", False),
        ("iris", 0, "constant", "nf4", True),
        ("iris", 0, "zero-shot", "nf4", False),
        ("iris", 1, "constant", "nf4", False),
        ("iris", 1, "zero-shot", "nf4", False),
        ("simulated", 0, "logistic", None, True),
        ("simulated", 1, "logistic", None, False),
    ]


def test_a_comparison_on_one_set(tmp_path):
    given = dict(seeds=[0], sets=["wine"], methods=["constant", "logistic", "zero-shot"], stored="nf4", **FEW)
    found = units.run(comparison.sweep(given, out=tmp_path / "out"), progress=False)
    scores = found["scores"].set_index("method")
    assert list(scores.index) == ["constant", "logistic", "zero-shot", "zero-shot in nf4"]
    assert scores.auc["constant"] == 0.5
    assert scores.auc["logistic"] > 0.95
    bins = comparison.load(tmp_path / "out")["reliability"].query("method == 'logistic' and kind == 'width'")
    assert bins.n.sum() == 40
    np.testing.assert_allclose(comparison.tables(**given)["scores"].auc, found["scores"].auc, rtol=1e-5)
    with pytest.raises(FileNotFoundError, match="dvc repro 04-comparison makes them"):
        comparison.load(tmp_path)


def test_sets_that_are_not_installed_are_left_out_and_named(tmp_path, monkeypatch):
    there = suite.installed()
    monkeypatch.setattr(suite, "installed", lambda: {"sklearn"} & set(there) or there)
    monkeypatch.setitem(suite.SUITE, "gone", replace(suite.SUITE["wine"], where="nowhere"))
    given = dict(seeds=[0], sets=["wine", "gone"], methods=["constant"], **FEW)
    units.run(comparison.sweep(given, out=tmp_path / "out"), progress=False)
    tags = comparison.load(tmp_path / "out")["tags"]
    assert tags[["set", "missing"]].to_numpy().tolist() == [["wine", False], ["gone", True]]
    with pytest.raises(suite.MissingExtra, match="pip install"):
        comparison.sweep(given | {"sets": ["gone"]}, out=tmp_path / "none")


def test_a_command_makes_shards_and_merges_them(tmp_path, capsys):
    file = tmp_path / "s.yaml"
    file.write_text("seeds: [0, 1]\nsets: [wine]\nmethods: [constant, logistic]\nrows: 60\nasked: 40\n")
    run = lambda *more: main(["comparison", str(file), "--out", str(tmp_path / "out"), "--processes", "1", *more])
    run("--shard", "1/2")
    run("--shard", "2/2")
    run("--merge", *(str(tmp_path / f"out.shard-{i}-of-2") for i in (1, 2)))
    assert "4 units; rows: reliability" in capsys.readouterr().out
    merged = (tmp_path / "out" / "scores.csv").read_bytes()
    main(["comparison", str(file), "--out", str(tmp_path / "whole"), "--processes", "1"])
    assert (tmp_path / "whole" / "scores.csv").read_bytes() == merged


def test_contexts_hold_all_rows():
    found = when_to_fine_tune.planned(sets=["wine"], seeds=[0], lengths=[25, 50], members=2)
    assert [(u["rows"], u["context"], u["method"]) for u in found[:3]] == [
        (25, 25, "boosting"),
        (25, 25, "zero-shot"),
        (50, 50, "boosting"),
    ]
    with pytest.raises(ValueError, match="1 rows are too few"):
        when_to_fine_tune.planned(sets=["wine"], seeds=[0], lengths=[1], members=2)


ONE = "seeds: [0]\nsets: [wine]\nmethods: [constant]\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("comparison", "seeds: 2020-01-01\nmethods: []\n", "seeds is"),
        ("comparison", ONE.replace("constant", "logistik"), "mean 'logistic'?"),
        ("comparison", ONE.replace("wine", "wien"), "mean 'wine'?"),
        ("comparison", ONE + "rows: 0\n", "rows is 0"),
        ("comparison", ONE + "processes: 2\n", "unknown setting 'processes'"),
        ("comparison", ONE.replace("[0]", "[-1]"), "seed -1"),
        ("comparison", ONE.replace("[0]", "[]"), "nothing to study"),
        ("learning_rates", "sets: all\nseeds: [0]\nrates: {sft: [.nan]}\nrows: 9\nasked: 9\nmembers: 1\n", "rates is"),
        ("learning_rates", "sets: all\nseeds: [0]\nrates: {sft: [-1.0]}\nrows: 9\nasked: 9\nmembers: 1\n", "positive"),
        ("learning_rates", "sets: all\nseeds: [0]\nrates: {stf: [1.0]}\nrows: 9\nasked: 9\nmembers: 1\n", "strategy"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, name, text, message):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        main([name, str(file), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [file]


def test_the_committed_settings_are_those_of_the_tables():
    for stage, sweep in check.sweeps().items():
        made = [entry["arguments"] for entry in units.index(sweep.out)["units"]]
        asks_tables = sweep.function in (evaluation.one, evaluation.scores)
        absent = evaluation.missing(made) if asks_tables else []  # the packages of their data are not installed
        assert [unit for unit in made if unit not in absent] == [u for u in sweep.units if u not in absent], stage
