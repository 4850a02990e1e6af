"""Reports, statistics and the comparison with what is committed."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from compendium import compare, report, stats


def draw(out):
    report.style()
    results = report.Report(out)
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1 / 3])
    results.figure(fig, "line", pd.DataFrame({"x": [0, 1], "y": [0, 1 / 3]}))
    plt.close(fig)
    results.metrics(b=np.float32(0.123456789), a=1, missing=float("nan"))
    results.claim("a", "ours", "earlier", stats.Estimate(1 / 3, 0.1, 0.5, 8, "seeds"), bar=0.0)
    results.claim(
        "a", "paper", "s", stats.Estimate(0.4, 0.1, 0.5, 8, "seeds"), bar=0.6, paper="p", margin=0.1, figure="line"
    )
    results.claim("b", "check", "software", stats.Estimate(1.0, None, None, 1, "comparison"), bar=0.5)
    return results


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    draw(tmp_path / "one")
    draw(tmp_path / "two")
    for name in ("line.png", "line.csv", "metrics.json", "claims.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads((tmp_path / "one/metrics.json").read_text()) == {"a": 1, "b": 0.123457, "missing": None}
    assert (tmp_path / "one/line.csv").read_text() == "x,y\n0,0\n1,0.333333\n"
    assert not list((tmp_path / "one").glob(".*"))


def test_without_a_folder_nothing_is_written_and_everything_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = draw(None)
    assert not list(tmp_path.iterdir())
    one = stats.Estimate(0.4, 0.1, 0.5, 8, "seeds")
    with pytest.raises(ValueError, match="unknown kind 'papers'"):
        results.claim("b", "papers", "", one, bar=0)
    with pytest.raises(ValueError, match="claim id"):
        results.claim("B c", "paper", "", one, bar=0)
    with pytest.raises(ValueError, match="side is 'over'"):
        results.claim("b", "paper", "", one, bar=0, side="over")


def test_claims_are_collected_into_a_table_and_the_readme(tmp_path):
    draw(tmp_path / "figures/01_section/01_notebook")
    (tmp_path / "figures/01_section/.01_notebook.partial").mkdir()
    (tmp_path / "figures/01_section/.01_notebook.partial/claims.json").write_text("[{}]")
    claims = report.collect(tmp_path / "figures")
    assert claims.notebook.tolist() == ["01_section/01_notebook"] * 2
    assert claims.value.tolist() == [0.4, 1.0]
    assert claims.verdict.tolist() == [stats.CONTRADICTED, stats.SUPPORTED]
    assert report.counts(claims).loc["paper"].to_dict() == {
        "supported": 0,
        "contradicted": 1,
        "undecided": 0,
        "not testable": 0,
    }
    assert report.counts(claims).to_numpy().sum() == 1, "a check is no finding"
    readme = tmp_path / "README.md"
    readme.write_text("top\n<!-- scorecard:start -->\nstale line\n<!-- scorecard:end -->\nbottom\n")
    report.update(readme, "scorecard", report.scorecard(claims))
    report.update(readme, "scorecard", report.scorecard(claims))
    text = readme.read_text()
    assert text.startswith("top\n")
    assert text.endswith("<!-- scorecard:end -->\nbottom\n")
    chance = f"{stats.power(stats.Estimate(0.4, 0.1, 0.5, 8, 'seeds'), 0.1):.0%}"
    assert f"| s | p; power {chance} at a margin of 0.1 | 0.4 [0.1, 0.5], 8 seeds | **contradicted** |" in text
    assert "software" not in text
    assert "stale line" not in text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="scorecard:start"):
        report.update(readme, "scorecard", "")


def test_what_cannot_be_tested_says_why():
    results, few = report.Report(), stats.Estimate(0.4, 0.1, 0.5, 5, "seeds")
    assert results.claim("few", "ours", "", few, bar=0.0)["why"] == "5 seeds, fewer than 6"
    enough = few._replace(n=9)
    assert results.claim("said", "ours", "", enough, bar=0.0, untestable="a quick run")["verdict"] == stats.UNTESTABLE
    assert results.claim("none", "ours", "", enough._replace(low=None), bar=0.0)["why"] == "no interval"
    assert results.claim("fine", "ours", "", enough, bar=0.0)["why"] is None
    assert results.claims["few"]["power"] is None, "only claims of papers carry it"
    assert results.summary().verdict.tolist() == ["not testable"] * 3 + ["supported"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.csv"
    report.write(path, "old")
    monkeypatch.setattr(report.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        report.write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.csv"]


def test_t_interval_equals_the_textbook():
    values = [1.0, 2.0, 4.0]
    low, high = stats.t_interval(values)
    half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-5)
    assert all(np.isnan(stats.t_interval([1.0])))


def test_bootstrap_interval_is_near_the_normal_one_and_repeats():
    values = np.random.default_rng(0).normal(size=400)
    low, high = stats.bootstrap_interval(values)
    assert (low, high) == stats.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert stats.bootstrap_interval([1.0, 1.0]) == (1.0, 1.0)


def test_mcnemar_equals_the_binomial_test():
    before = np.array([1] * 12 + [0] * 5 + [1] * 20, bool)
    after = np.array([0] * 12 + [1] * 5 + [1] * 20, bool)
    assert stats.mcnemar(before, after) == pytest.approx(sps.binomtest(5, 17).pvalue)
    with pytest.raises(ValueError, match="paired"):
        stats.mcnemar([True], [True, False])


@pytest.mark.parametrize(
    ("old", "new", "suffix", "expected"),
    [
        (b"a\n1\n", b"a\n1\n", ".csv", compare.IDENTICAL),
        (b"a\n1.000\n", b"a\n1.001\n", ".csv", compare.TOLERATED),
        (b"a\n1\n", b"a\n1.5\n", ".csv", compare.DRIFT),
        (b"a\n1\n", b"a\n1\n2\n", ".csv", compare.DRIFT),
        (b"a\nx\n", b"a\ny\n", ".csv", compare.DRIFT),
        (b"a\n1\n", b"b\n1\n", ".csv", compare.DRIFT),
        (b'[{"v": 2.0}]', b'[{"v": 2.001}]', ".json", compare.TOLERATED),
        (b'[{"v": "supported"}]', b'[{"v": "undecided"}]', ".json", compare.DRIFT),
        (b"a,b\n1,\n", b"a,b\n1,3\n", ".csv", compare.DRIFT),
        (b"png1", b"png2", ".png", compare.TOLERATED),
        (b"a,b\ninf,1\n", b"a,b\ninf,1.001\n", ".csv", compare.TOLERATED),
        (b"a\ninf\n", b"a\n1e308\n", ".csv", compare.DRIFT),
        (b"a\ninf\n", b"a\n-inf\n", ".csv", compare.DRIFT),
        (b"a,b\n,1\n", b"a,b\n,1.001\n", ".csv", compare.TOLERATED),
        (b"a\nNone\nx\n", b"a\nNA\nx\n", ".csv", compare.DRIFT),
        (b"a\nTrue\n", b"a\n1\n", ".csv", compare.DRIFT),
        (b'{"v": true}', b'{"v": 1}', ".json", compare.DRIFT),
        (b'{"v": null}', b'{"v": 0}', ".json", compare.DRIFT),
        (b"[[1, 2], [3]]", b"[[1], [2, 3]]", ".json", compare.DRIFT),
        (b"a,b\n1,2\n", b"b,a\n2,1\n", ".csv", compare.DRIFT),
        (b"a\n1\n", b"", ".csv", compare.DRIFT),
        (b"a\n1\n", "a\né\n".encode("latin-1"), ".csv", compare.DRIFT),
        (b'{"v": 1}', b'{"v": ', ".json", compare.DRIFT),
        (b'{"v": 1}', b'{"v": ' + b"9" * 400 + b"}", ".json", compare.DRIFT),
        (b"a\n" + b"9" * 30 + b"\n", b"a\n" + b"9" * 29 + b"8\n", ".csv", compare.TOLERATED),
        (b"png1", b"", ".png", compare.DRIFT),
        (b"notes", b"other notes", ".md", compare.DRIFT),
    ],
)
def test_comparison(old, new, suffix, expected):
    assert compare.judge(old, new, suffix, rtol=0.02, atol=0.001)[0] == expected


def test_comparison_without_tolerance():
    assert compare.judge(b"a,b\n0,1\n", b"a,b\n0.0,1.0\n", ".csv", rtol=0, atol=0)[0] == compare.TOLERATED
    assert compare.judge(b"[1, 0]", b"[2, 0]", ".json", rtol=0, atol=0)[0] == compare.DRIFT


def test_provenance_never_fails_a_run_that_is_done(monkeypatch, tmp_path):
    def gone(name):
        raise report.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(report.metadata, "version", gone)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = report.provenance()
    assert (found["commit"], found["changed files"], found["torch"]) == ("unknown", "unknown", "not installed")
