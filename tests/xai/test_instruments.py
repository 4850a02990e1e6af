"""The inventory is valid; kappa against scikit-learn and closed forms; gaps and tests by hand; errors that say what to do."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps
from sklearn.metrics import cohen_kappa_score

from compendium import stats
from compendium.paths import DATA
from compendium.xai.audit import coding, instruments

TABLE = instruments.measures(instruments.load())


def small(**changes):
    """Four instruments with gaps 1, 0, 3, 0; the first names no evidence, the third is an absence claim on documents, the fourth on activations."""
    columns = {
        "id": list("abcd"),
        "date": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01", "2023-01-01"]),
        "legal_force": ["voluntary", "binding", "binding", "voluntary"],
        "claim_types": [("propensity",), ("process",), ("process", "absence"), ("absence",)],
        "evidence_named": [(), ("red-teaming",), ("documentation",), ("interpretability",)],
        "access_required": [1, 0, 3, 3],
        "access_granted": [0, 0, 0, 3],
        "verifier": ["self", "none", "regulator", "independent"],
        "sanction": ["no", "no", "yes", "no"],
    }
    return instruments.measures(pd.DataFrame({**columns, **changes}))


# The data


def test_inventory():
    assert len(TABLE) == 21
    assert TABLE.id.is_unique
    assert TABLE.date.between("2019-01-01", "2026-03-31").all()
    assert set(TABLE.id[TABLE.named_by_paper == "yes"]) == {
        "eu-aiact-55-2024",
        "ca-sb53-2025",
        "ai-verify-2022",
        "korea-basic-2025",
    }
    assert TABLE.source.str.startswith("https://").all()
    assert TABLE.checked.str.contains("2026|not verified").all()
    year = TABLE.id.str.extract(r"-(\d{4})$")[0].dropna().astype(int)
    assert (year == TABLE.date.dt.year[year.index]).all()


def test_paraphrases_are_short():
    assert TABLE.claim_excerpt.str.split().str.len().max() <= 25
    assert not TABLE.claim_excerpt.str.contains('"').any()


def test_codes_keep_to_the_coding_book():
    required = {"process": [0], "propensity": [1], "capability": [2], "absence": [2, 3]}
    for row in TABLE.itertuples():
        strongest = max(row.claim_types, key=instruments.CLAIMS.index)
        assert row.access_required in required[strongest], row.id
    book = (DATA / "coding_book.md").read_text()
    for code in (*instruments.CLAIMS, *instruments.EVIDENCE, *instruments.VERIFIERS, *instruments.FORCES):
        assert f"`{code}`" in book, code
    for kind, reach in instruments.EVIDENCE.items():
        assert f"`{kind}` ({reach}" in book, kind


def test_second_coding_is_of_the_same_instruments():
    if not (DATA / "second_coding.csv").exists():
        pytest.skip("no second coding yet")
    other = instruments.second(TABLE)
    assert other.id.tolist() == TABLE.id.tolist()
    swapped = instruments.swap(TABLE, other)
    assert (swapped.gap == other.access_required - other.access_granted).all()


# Kappa


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30),
    st.sampled_from([None, "linear"]),
)
def test_kappa_is_scikit_learns(pairs, weights):
    a, b = np.array(pairs).T
    ours = coding.kappa(a, b, weights, labels=range(5))
    if np.isnan(ours):
        assert len(set(a) | set(b)) == 1
    else:
        assert ours == pytest.approx(cohen_kappa_score(a, b, weights=weights, labels=list(range(5))), abs=1e-12)


def test_text_has_no_order_of_its_own_and_dates_are_no_numbers():
    with pytest.raises(ValueError, match="need labels="):
        coding.kappa(["low", "high", "mid"], ["low", "mid", "mid"], "linear")
    scale = ["low", "mid", "high"]
    assert coding.kappa(["low", "high"], ["low", "mid"], "linear", scale) == coding.kappa(
        [0, 2], [0, 1], "linear", range(3)
    )
    days = pd.to_datetime(["2020-01-01", "2021-01-01", None, "2023-01-01"])
    with pytest.raises(ValueError, match="must be numbers"):
        instruments.trend(days, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="must be numbers"):
        instruments.difference(days, [True, False, True, False])


def test_kappa_closed_forms():
    yes, no = ["y"] * 45 + ["n"] * 15 + ["y"] * 25 + ["n"] * 15, ["y"] * 60 + ["n"] * 40
    a, b = yes[:60] + yes[60:], no  # 45 both yes, 15 both no, 40 apart: (0.6 - 0.54) / (1 - 0.54)
    assert coding.kappa(a, b) == pytest.approx((0.60 - 0.54) / (1 - 0.54))
    assert coding.kappa([0, 1, 2], [0, 1, 2]) == 1
    assert coding.kappa([0, 1], [1, 0]) == -1
    # Linear weights: one step of four off in every item costs less than four steps off.
    near, far = (coding.kappa([0, 4, 0, 4], other, "linear", range(5)) for other in ([1, 3, 1, 3], [4, 0, 4, 0]))
    assert near > 0 > far
    assert np.isnan(coding.kappa([1, 1], [1, 1]))


def test_kappa_of_chance_is_zero():
    a, b = np.random.default_rng(0).integers(3, size=(2, 40_000))
    assert abs(coding.kappa(a, b)) < 0.02


@pytest.mark.parametrize(
    ("a", "b", "kwargs", "says"),
    [
        ([0, 1], [0], {}, "same items"),
        ([], [], {}, "same items"),
        ([0, 1], [0, 1], {"weights": "cubic"}, "weights"),
        ([0, 7], [0, 1], {"labels": range(5)}, "7"),
    ],
)
def test_bad_codings_are_refused(a, b, kwargs, says):
    with pytest.raises(ValueError, match=says):
        coding.kappa(a, b, **kwargs)


@pytest.mark.parametrize("kind", [np.int8, float, object, str, bool])
def test_labels_in_every_type_have_one_kappa(kind):
    a, b = np.random.default_rng(0).integers(2, size=(2, 30))
    expected = coding.kappa(a, b)
    assert coding.kappa(a.astype(kind), b.astype(kind)) == pytest.approx(expected)
    assert coding.kappa(pd.Series(a.astype(kind)), pd.Categorical(b.astype(kind))) == pytest.approx(expected)
    assert coding.kappa(pd.Series(a, dtype="Int64"), list(b)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "kwargs", "says"),
    [
        ([0, 1, 0], ["0", "1", "0"], {}, "one type"),
        ([0, np.nan, 0], [0, 1, 0], {}, "label is missing"),
        (["x", None, "y"], ["x", "y", "y"], {}, "label is missing"),
        ([0, 1], [0, 1], {"labels": [0, 1, 1]}, "twice"),
        (pd.Series([0, 1, 1]), pd.Series([0, 1, 1])[::-1], {}, "indexed differently"),
    ],
)
def test_codings_that_cannot_be_compared_are_refused(a, b, kwargs, says):
    with pytest.raises(ValueError, match=says):
        coding.kappa(a, b, **kwargs)


def test_lists_that_are_none_are_refused():
    good = [("x",), ("x", "y")]
    with pytest.raises(ValueError, match="a list of codes, got 'x;y'"):  # "x" in "xenon" is true
        coding.multi_label(good, [("x",), "x;y"], ["x", "y"])
    with pytest.raises(ValueError, match="'z' occurs and is not in codes"):
        coding.multi_label(good, [("x",), ("z",)], ["x", "y"])
    with pytest.raises(ValueError, match="indexed differently"):
        coding.multi_label(pd.Series(good), pd.Series(good)[::-1], ["x", "y"])


GROUP, MEASURED = np.arange(12) % 3 == 0, np.random.default_rng(0).normal(size=12)


@pytest.mark.parametrize(
    "change", [list, lambda v: v.astype(int), lambda v: v.astype(float), pd.Series, lambda v: v[:, None]]
)
def test_groups_in_every_type_are_one(change):
    expected = instruments.difference(MEASURED, GROUP, resamples=99)
    assert instruments.difference(MEASURED, change(GROUP), resamples=99) == expected


@pytest.mark.parametrize("bad", [np.where(GROUP, "yes", "no"), 2 * GROUP - 1, np.where(GROUP, 1, np.nan), GROUP + 1])
def test_groups_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="group"):
        instruments.difference(MEASURED, bad)


def test_values_that_are_missing_or_of_other_items_are_refused():
    gone = np.where(GROUP, np.nan, MEASURED)
    for wrong in ((gone, GROUP), (pd.Series(MEASURED), pd.Series(GROUP)[::-1])):
        with pytest.raises(ValueError, match=r"missing values|indexed differently"):
            instruments.difference(*wrong)
    series = pd.Series(MEASURED)
    for wrong in ((gone, MEASURED), (MEASURED, gone), (series, series[::-1]), (MEASURED.reshape(3, 4),) * 2):
        with pytest.raises(ValueError, match=r"missing values|indexed differently|one value a row"):
            instruments.trend(*wrong)
    with pytest.raises(ValueError, match="numbers of hits and of items needed"):
        stats.share_interval(0.7, 10)


def test_lists_of_codes():
    a = [("x",), ("x", "y"), (), ("y",)]
    b = [("x",), ("x",), (), ("y",)]
    found = coding.multi_label(a, b, ["x", "y", "z"]).set_index("code")
    assert found.kappa["x"] == 1
    assert found.kappa["y"] == pytest.approx(cohen_kappa_score([0, 1, 0, 1], [0, 0, 0, 1]))
    assert np.isnan(found.kappa["z"])
    assert found.loc["y", ["first", "second"]].tolist() == [2, 1]


def test_agreement_with_oneself_is_perfect_and_with_strangers_is_not():
    same = coding.agreement(TABLE, TABLE, resamples=50)
    assert same.kappa.tolist() == [1] * 9
    other = TABLE.sample(frac=1, random_state=3).assign(id=TABLE.id.to_numpy())  # codes of other instruments
    assert (coding.agreement(TABLE, other, resamples=50).kappa < 0.5).all()
    assert (same.low <= same.high).all()


# Gaps


def test_measures_by_hand():
    table = small()
    assert table.gap.tolist() == [1, 0, 3, 0]
    assert table.reach.tolist() == [0, 1, 0, 3]
    assert table.fragile.tolist() == [False, False, True, False]
    assert table.outside.tolist() == [False, False, True, True]
    found = instruments.summary(table)
    assert found["gap"] == 1
    assert found["open"] == 0.5
    assert found["fragile"] == 0.5
    assert found["voluntary minus binding"] == -1
    assert found["inside minus outside"] == -1


def test_differences_split_into_required_and_granted():
    found = instruments.gradient(TABLE, resamples=200).iloc[:4]
    np.testing.assert_allclose(found.estimate, found.required - found.granted)
    assert ((found.low <= found.estimate) & (found.estimate <= found.high)).all()


def test_permutation_tests_are_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9))
    group = np.arange(9) < 4
    exact = sps.permutation_test((y[group], y[~group]), lambda a, b: a.mean() - b.mean(), n_resamples=np.inf)
    assert instruments.difference(y, group, resamples=9999)["p"] == pytest.approx(exact.pvalue, abs=0.02)
    found = instruments.trend(x, y, resamples=9999)
    assert found["estimate"] == pytest.approx(sps.spearmanr(x, y).statistic)
    paired = sps.permutation_test(
        (x,), lambda a: sps.spearmanr(a, y).statistic, permutation_type="pairings", n_resamples=999, rng=rng
    )
    assert found["p"] == pytest.approx(paired.pvalue, abs=0.06)


def test_undefined_is_nan_not_a_number():
    assert np.isnan(instruments.difference([1, 2, 3], [True, False, False])["estimate"])
    assert np.isnan(instruments.trend([1, 2, 3], [1, 1, 1])["estimate"])
    with pytest.raises(ValueError, match="three pairs"):
        instruments.trend([1, 2], [1, 2])


def test_share_interval_is_exact():
    low, high = stats.share_interval(7, 7, exact=True)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 7)), 1)
    assert np.isnan(stats.share_interval(0, 0)).all()


# Recodings


def test_recodings_are_all_monotone_maps():
    found = set(instruments.recodings())
    brute = {m for m in product(range(5), repeat=5) if all(np.diff(m) >= 0) and len(set(m)) > 1}
    assert found == brute
    assert len(instruments.rules()) == len({m for m in product(range(5), repeat=4) if all(np.diff(m) >= 0)}) == 70


def test_identity_changes_nothing_and_merging_closes_gaps():
    same = instruments.recode(TABLE, range(5))
    pd.testing.assert_frame_equal(same[["gap", "fragile"]], TABLE[["gap", "fragile"]])
    merged = instruments.recode(TABLE, (0, 0, 0, 0, 4))
    assert (merged.gap == 0).all()
    assert merged.fragile.equals(TABLE.absence)  # activations count no more than queries
    assert (instruments.recode(TABLE, (0, 0, 1, 1, 1)).gap >= 0).all()


def test_rules_by_hand():
    table = instruments.require(small(), {"process": 0, "propensity": 0, "capability": 1, "absence": 2})
    assert table.access_required.tolist() == [0, 0, 2, 2]
    assert table.gap.tolist() == [0, 0, 2, -1]


def test_sensitivity_covers_every_variant():
    found = instruments.sensitivity(TABLE, TABLE)
    assert found.kind.value_counts().to_dict() == {
        "as coded": 1,
        "second coder": 1,
        "one row dropped": 21,
        "scale recoded": 121,
        "claims to levels": 70,
    }
    shares = instruments.survival(found)
    assert shares.share.between(0, 1).all()
    assert len(shares) == 5 * len(instruments.CONCLUSIONS)


@pytest.mark.parametrize("scale", [(0, 1, 2), (4, 3, 2, 1, 0)])
def test_bad_recodings_are_refused(scale):
    with pytest.raises(ValueError, match="ascending"):
        instruments.recode(TABLE, scale)


def test_a_rule_names_every_claim():
    with pytest.raises(ValueError, match="capability"):
        instruments.require(TABLE, {"process": 0})


# Reading files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="verifier"), "lacks column 'verifier'"),
        (lambda t: t.iloc[:0], "no instruments"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "twice"),
        (lambda t: t.assign(access_required="5"), "'5' is none of 0, 1, 2, 3, 4"),
        (lambda t: t.assign(claim_types="virtue"), "'virtue' is none of process"),
        (lambda t: t.assign(claim_types=""), "'' is none of process"),
        (lambda t: t.assign(legal_force="soft"), "legal_force: 'soft'"),
        (lambda t: t.assign(date="May 2024"), "year-month-day"),
        (lambda t: t.assign(source=""), "source is empty"),
    ],
)
def test_bad_tables_are_refused(tmp_path, change, says):
    path = tmp_path / "instruments.csv"
    change(pd.read_csv(DATA / "instruments.csv", dtype=str, keep_default_na=False)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=says):
        instruments.load(path)


def test_codings_of_other_instruments_are_refused(tmp_path):
    path = tmp_path / "second.csv"
    columns = ["id", *instruments.CODED]
    raw = pd.read_csv(DATA / "instruments.csv", dtype=str, keep_default_na=False)[columns]
    raw.assign(id=raw.id.replace("oecd-2019", "oecd-1919")).to_csv(path, index=False)
    with pytest.raises(ValueError, match="oecd-1919"):
        instruments.second(TABLE, path)
    raw.iloc[::-1].to_csv(path, index=False)  # any order will do
    assert instruments.second(TABLE, path).access_required.tolist() == TABLE.access_required.tolist()
