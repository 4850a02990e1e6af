"""What the notebooks read of the runs, against counting by hand."""

import numpy as np
import pandas as pd
import pytest

from compendium import settings, units
from compendium.unlearning import outcomes
from compendium.unlearning.__main__ import main
from compendium.unlearning.studies import baselines, quantization_reversal, sparsity_permanence, unlearned


def answer(method, weights, kind, subject, correct, seed=0):
    return dict(
        domain="d", seed=seed, method=method, weights=weights, kind=kind, relation="r", subject=subject, correct=correct
    )


ANSWERS = pd.DataFrame(
    [
        *(answer("none", "float32", kind, s, 1) for kind in ("forget", "near", "far") for s in "ab"),
        *(answer("none", "nf4", "forget", s, c) for s, c in (("a", 1), ("b", 0))),
        *(answer("M", "float32", "forget", s, 0) for s in "ab"),
        *(answer("M", "float32", "near", s, c) for s, c in (("a", 1), ("b", 0), ("b", 1), ("a", 1))),
        *(answer("M", "float32", "far", s, 1) for s in "ab"),
        *(answer("M", "nf4", "forget", s, c) for s, c in (("a", 1), ("b", 0))),
    ]
)
EDITED = pd.DataFrame(
    {"domain": "d", "seed": 0, "method": ["none", "M"], "perplexity": [10.0, 15.0], "edited": [0, 0.1]}
)


def test_properties():
    found = outcomes.table(ANSWERS, EDITED).set_index("method")
    ours = found.loc["M"]
    assert ours["forget"] == 0
    assert ours["near"] == 0.75
    assert ours["near change"] == -0.25
    assert ours["retained change"] == -0.125
    assert ours["nf4 gap"] == 0.5
    assert found.loc["none", "nf4 gap"] == -0.5
    assert ours["perplexity ratio"] == 1.5
    assert ours["edited"] == 0.1


def test_shares_changes_and_gaps_are_one_value_a_fact():
    changed = outcomes.changes(ANSWERS, "M", ["near"])
    assert changed.to_dict() == {("d", 0, "r", "a"): 0.0, ("d", 0, "r", "b"): -0.5}
    assert outcomes.gaps(ANSWERS, "M", "nf4").to_list() == [1.0, 0.0]
    later = pd.concat([ANSWERS, ANSWERS[ANSWERS.method == "none"].assign(seed=1)])
    assert outcomes.changes(later, "M", ["near"]).equals(changed), "a seed without the method counts for nothing"


def grid(table, domain="d"):
    index = [(domain, seed, "r", subject) for seed in range(table.shape[1]) for subject in range(table.shape[0])]
    names = ["domain", "seed", "relation", "subject"]
    return pd.Series(table.T.ravel(), pd.MultiIndex.from_tuples(index, names=names)).dropna()


def test_intervals_resample_facts_and_seeds():
    rng = np.random.default_rng(0)
    facts = rng.normal(size=(200, 1))
    alike = grid(np.repeat(facts, 3, axis=1))
    mean, low, high, runs, _ = outcomes.interval(alike)
    assert runs == 3
    assert mean == pytest.approx(facts.mean())
    error = facts.std() / np.sqrt(200)  # three runs of the same answers are worth one
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    seeds = rng.normal(size=(1, 30))
    mean, low, high, *_ = outcomes.interval(grid(np.repeat(seeds, 50, axis=0)))
    assert high - low == pytest.approx(2 * 1.96 * seeds.std() / np.sqrt(30), rel=0.1)
    holes = np.where(rng.random((40, 3)) < 0.3, np.nan, 1.0)
    both = pd.concat([grid(holes), grid(np.zeros((10, 3)), "e")])
    assert outcomes.interval(both)[:3] == (0.5, 0.5, 0.5)


def test_missing_tables_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro 02-unlearned makes them"):
        outcomes.read("answers", tmp_path)


WHOLE = {
    "domains": "[d, e]",
    "seeds": "[0]",
    "settings": "{steps: 2}",
    "limits": "{}",
    "options": "{n_prose: 1}",
    "stored": "{others: [nf4]}",
    "inside": "[]",
}


def settings_file(tmp_path, rates="method,learning_rate\nGA,1e-3\nMANSU,1e-2\n", **changes):
    (tmp_path / "rates.csv").write_text(rates)
    file = tmp_path / "runs.yaml"
    lines = WHOLE | {"rates": str(tmp_path / "rates.csv")} | changes
    file.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value))
    return file


def test_units_are_methods_by_domain_and_seed(tmp_path):
    file = settings_file(
        tmp_path,
        domains='["r, d", "r, e"]',
        seeds="[0, 1]",
        inside="[GA]",
        stored="{others: [nf4], MANSU: [fp4]}",
        ablations='{"r, e, 1": ["MANSU, no floor"]}',
    )
    found = unlearned.sweep(settings.read(file), out=tmp_path / "out").units
    said = [(u["domain"], u["seed"], u["method"], u["settings"]["learning_rate"]) for u in found]
    methods = [("none", 0.0), ("GA", 1e-3), ("MANSU", 1e-2)]
    assert said == [
        *[("r, d", 0, *m) for m in methods],
        *[("r, d", 1, *m) for m in methods],
        *[("r, e", 0, *m) for m in methods],
        *[("r, e", 1, *m) for m in methods],
        ("r, e", 1, "MANSU, no floor", 1e-2),
    ]
    assert [u["options"]["look_inside"] for u in found[:6]] == [True, True, True, False, True, False]
    assert [u["options"]["stored"] for u in found[:3]] == [["nf4"], ["nf4"], ["fp4"]]


def test_a_unit_keeps_what_its_study_says(tmp_path, monkeypatch):
    def study(method, subject, settings, **options):
        key = {"weights": "float32", "kind": "forget", "relation": "r", "subject": "s", "option": 3}
        return {
            "answers": pd.DataFrame(
                [{**key, "method": method, "correct": True, "logprob": -settings["learning_rate"] / 3}]
            ),
            "facts": pd.DataFrame([{"domain": "r, d", "seed": 0, "method": method, "edited": 1 / 3}]),
            "relearning": pd.DataFrame(),
        }

    monkeypatch.setattr(unlearned.evaluation, "subject", lambda *_: None)
    monkeypatch.setattr(unlearned.evaluation, "study", study)
    sweep = unlearned.sweep(settings.read(settings_file(tmp_path, domains='["r, d"]')), out=tmp_path / "out")
    units.run(sweep, progress=False)
    found = outcomes.read("answers", tmp_path / "out")
    assert found.columns.tolist() == unlearned.ANSWERS
    assert found.logprob.tolist() == [0, 0, -0.003]
    assert outcomes.read("facts", tmp_path / "out").method.tolist() == ["none", "GA", "MANSU"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": "[a]"}, "unknown setting 'domain'"),
        ({"settings": ""}, "'settings' is missing"),
        ({}, "no relation and domain"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, changes, message):
    refused(settings_file(tmp_path, **changes), tmp_path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,rate\nGA,1\n", "lacks column 'learning_rate'"),
        ("method,learning_rate\nGB,1\n", "unknown method 'GB'"),
        ("method,learning_rate\nGA,-1\n", "must be a positive number"),
        ("method,learning_rate\nGA,\n", "must be a positive number"),
        ("method,learning_rate\nGA,fast\n", "must be a positive number"),
    ],
)
def test_bad_rates_end_in_one_line(tmp_path, text, message):
    refused(settings_file(tmp_path, text), tmp_path, message)


def refused(file, tmp_path, message):
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        main(["unlearned", str(file), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_baselines_begin_with_the_untouched_model():
    found = baselines.planned(domain="r, d", seed=0, grid={"GA": [1e-3, 2e-3]}, settings={"steps": 1}, limits={})
    assert [(u["method"], u["settings"]["learning_rate"]) for u in found] == [("none", 0.0), ("GA", 1e-3), ("GA", 2e-3)]


def test_reversal_has_an_untouched_model_in_every_number_format():
    given = dict(domain="r, d", seed=0, stored=["nf4"], settings={}, limits={})
    found = quantization_reversal.planned(rates={"NPO": [1e-5]}, masters=["float32", "bfloat16"], **given)
    assert [(u["method"], u["master"]) for u in found] == [
        ("none", "float32"),
        ("none", "bfloat16"),
        ("NPO", "float32"),
        ("NPO", "bfloat16"),
    ]
    with pytest.raises(ValueError, match="unknown number format 'float16'"):
        quantization_reversal.planned(rates={}, masters=["float16"], **given)


def test_rates_grow_as_supports_shrink():
    given = dict(domain="r, d", seeds=[0], dense_rate=1e-4, exponent=0.5, max_rate=5e-3, target=0.4, reach=0.5, looks=1)
    found = sparsity_permanence.planned(shares=[1e-6, 0.01, 1.0], settings={}, limits={}, **given)
    assert [u["share"] for u in found] == [None, 1e-6, 0.01, 1.0]
    assert [u["settings"].get("learning_rate") for u in found[1:]] == pytest.approx([5e-3, 1e-3, 1e-4])
    with pytest.raises(ValueError, match=r"1\.5 is no share"):
        sparsity_permanence.planned(shares=[1.5], settings={}, limits={}, **given)
