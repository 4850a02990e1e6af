"""The units of section 05: what is planned, what is refused before work starts, and evidence that comes back whole."""

import numpy as np
import pandas as pd
import pytest

from compendium import units
from compendium.xai.__main__ import STUDIES, main
from compendium.xai.planted.detect import Found
from compendium.xai.studies import (
    audit_gap,
    image_explainers,
    metric_reliability,
    posthoc_vs_mechanistic,
    tabular_explainers,
)

TABLES = dict(kinds=["linear"], sets=["wine"], seeds=[0, 4], rows=60, asked=2, samples=20)
METRICS = dict(
    seeds=[0], kinds=["linear"], trained=["copies"], climbed=["additive"], secrets=["breast_cancer"],
    domains=["breast cancer"], rows=4, train=100, secret_rows=4,
)  # fmt: skip
PLANTED = dict(
    seeds=[0, 1], evidence_models=2, budgets=[1], policy_budgets=[8], policy_steps=2, sparsity=0.01, decay=0.3
)
WORLDS = dict(worlds=2, hiding=["password"], learn=2, more=2, hide=2)


def test_every_unit_is_planned_once():
    of_tables = tabular_explainers.planned(**TABLES)
    assert [(u["part"], u.get("kind", u.get("name")), u["seed"]) for u in of_tables] == [
        ("known", "linear", 0),
        ("known", "linear", 4),
        ("real", "wine", 0),
        ("real", "wine", 4),
    ]
    assert [u["question"] for u in metric_reliability.planned(**METRICS)] == [*metric_reliability.QUESTIONS]
    jobs = pd.Series([u["job"] for u in posthoc_vs_mechanistic.planned(**PLANTED)]).value_counts()
    assert jobs.to_dict() == {"evidence": 12, "constraint": 6, "edits": 4, "policy": 2}
    assert [u["seed"] for u in audit_gap.planned(**WORLDS)] == [100, 101]
    assert image_explainers.planned(seeds=[3], train=10, n_images=4) == [{"seed": 3, "train": 10, "n_images": 4}]


@pytest.mark.parametrize(
    ("study", "given", "message"),
    [
        (tabular_explainers, TABLES | {"kinds": ["liner"]}, "unknown table 'liner': choose among linear"),
        (tabular_explainers, TABLES | {"sets": ["iris"]}, "unknown table 'iris': choose among wine"),
        (metric_reliability, METRICS | {"trained": ["curve"]}, "unknown name 'curve'"),
        (metric_reliability, METRICS | {"domains": ["weather"]}, "unknown name 'weather'"),
        (posthoc_vs_mechanistic, PLANTED | {"budgets": []}, "give at least one number of units"),
        (audit_gap, WORLDS | {"hiding": ["magic"]}, "unknown mechanism 'magic'"),
        (audit_gap, WORLDS | {"world": 3}, "did you mean 'worlds'"),
        (image_explainers, {"seeds": [0], "train": 10}, "'n_images' is missing"),
    ],
)
def test_bad_settings_are_refused_before_work(study, given, message):
    with pytest.raises(ValueError, match=message):
        study.sweep(given)


@pytest.mark.parametrize("name", STUDIES)
def test_a_bad_file_ends_in_one_line(tmp_path, name):
    (tmp_path / "s.yaml").write_text("nothing: 1\n")
    with pytest.raises(SystemExit, match=r"^error: .*unknown setting 'nothing'") as error:
        main([name, str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_evidence_comes_back_from_its_table():
    rng = np.random.default_rng(0)
    models = [
        {
            "gradient": Found(rng.random(12).round(3), rng.random(12).round(3)),
            "held-out test": Found(rng.random(3), None),
        }
        for _ in range(2)
    ]
    rows = [
        {"number": number, "kind": kind}
        | {f"v{i}": v for i, v in enumerate(of.vector)}
        | {f"p{i}": p for i, p in enumerate(() if of.pixels is None else of.pixels)}
        for number, found in enumerate(models)
        for kind, of in found.items()
    ]
    again = posthoc_vs_mechanistic.found(pd.DataFrame(rows))
    for one, other in zip(again, models, strict=True):
        assert one.keys() == other.keys()
        for kind in one:
            np.testing.assert_array_equal(one[kind].vector, other[kind].vector)
        assert one["held-out test"].pixels is None
        np.testing.assert_array_equal(one["gradient"].pixels, other["gradient"].pixels)


def test_a_unit_is_the_same_made_twice(tmp_path):
    given = TABLES | {"seeds": [0], "sets": []}
    sweep = units.Sweep(tabular_explainers.one, tabular_explainers.planned(**given), tmp_path / "out", "tests")
    units.run(sweep, progress=False)
    first = (tmp_path / "out" / "recovery.csv").read_bytes()
    again = units.Rows.of(tabular_explainers.one(**sweep.units[0]))
    assert again == next(iter(units.read_rows(tmp_path / "out").values()))
    assert first.count(b"\n") == len(again["recovery"][1]) + 1


def test_the_explanation_without_a_model_knows_the_data_only():
    rng = np.random.default_rng(0)
    x, X = rng.standard_normal((200, 3)), rng.standard_normal((5, 3))
    y = (x[:, 1] > 0).astype(int)
    found = tabular_explainers.no_model(x, y, X)
    away = (X - x.mean(0)) / x.std(0)
    truth = away * [np.corrcoef(x[:, j], y)[0, 1] for j in range(3)]
    np.testing.assert_allclose(found, truth, rtol=1e-9)
    assert np.isfinite(tabular_explainers.no_model(np.ones((4, 2)), np.ones(4), np.ones((1, 2)))).all()
