"""References in prose: what they stand for, what they refuse, and a planted number."""

import json

import pandas as pd
import pytest

from compendium import readings


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"accuracy": 0.875, "name": "NPO", "runs": 1200}))
    claim = {"id": "nf4-recovers", "value": -0.02, "low": -0.07, "high": 0.0249, "n": 34, "verdict": "undecided"}
    (tmp_path / "claims.json").write_text(json.dumps([claim]))
    rows = [("NPO", "nf4", 0.1), ("NPO", "fp4", 0.3), ("constrained, circuit", "nf4", -0.5)]
    pd.DataFrame(rows, columns=["method", "format", "gap"]).to_csv(tmp_path / "gaps.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{accuracy:.0%}", "88%"),
        ("{accuracy:.1p} points", "87.5 points"),
        ("{runs:,}", "1,200"),
        ("{name}", "NPO"),
        ("{nf4-recovers:.2f}", "−0.02"),
        ("{abs nf4-recovers:.2f}", "0.02"),
        ("{nf4-recovers:+.1p}", "−2.0"),
        ("{nf4-recovers.interval:.0p}", "[−7, 2]"),
        ("{nf4-recovers.n} facts, {nf4-recovers.verdict}", "34 facts, undecided"),
        ("{gaps[method=NPO; format=nf4].gap:.2f}", "0.10"),
        ("{gaps[method=constrained, circuit].gap:.1f}", "−0.5"),
        ("{max gaps[].gap:.1f} of {count gaps[]}", "0.3 of 3"),
        ("{mean gaps[method=NPO].gap:.1f}", "0.2"),
        ("no reference: {}, {1}, {A b}", "no reference: {}, {1}, {A b}"),
    ],
)
def test_what_a_reference_stands_for(folder, text, said):
    assert readings.fill(text, folder) == said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{accurcy}", "no metric and no claim"),
        ("{nf4-recovers.p}", "no 'p'"),
        ("{gaps[method=NPO].gap}", "2 rows"),
        ("{gaps[method=GA].gap}", "0 rows"),
        ("{gaps[rate=1].gap}", "no column 'rate'"),
        ("{gaps[method=NPO; format=nf4].share}", "no column 'share'"),
        ("{shares[].gap}", "no table shares.csv"),
    ],
)
def test_what_nothing_answers_to_is_refused(folder, text, why):
    with pytest.raises(readings.ReadingError, match=why):
        readings.fill(text, folder)


def test_another_notebook_can_be_asked(folder):
    assert readings.fill(f"{{{folder.name}#accuracy:.0%}}", folder, folder.parent) == "88%"


def test_a_zero_has_no_sign():
    assert [readings.shown(v, ".1f") for v in (-0.001, 0.0, -0.06)] == ["0.0", "0.0", "−0.1"]


def test_a_planted_number_is_found():
    text = "It gains {accuracy:.0%}, which is 88 points, in NF4 and Q4_1 (`top_5`, section 2, arXiv 2605.15138, 4-bit)."
    assert [found.strip() for found in readings.typed(text)]
    assert len(readings.typed(text)) == 2
    assert not readings.typed(text.replace("88 points", "{accuracy:.0p} points"))
    assert not readings.typed("# 3. Reading\n\n1. [first](02_x.ipynb), $x_2 = 3$, GPT-2, 8B, 95 % intervals of 2026")
