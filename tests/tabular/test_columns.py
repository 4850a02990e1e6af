"""Columns by name and by value: whatever their type, the same predictions, or one line that says why not."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium.tabular import baselines, pfn, suite
from compendium.tabular.columns import Levels
from compendium.tabular.encode import Encoder
from compendium.tabular.pfn import PFNClassifier

ROWS = 90
RNG = np.random.default_rng(0)
LEVEL, Y = RNG.integers(4, size=ROWS), RNG.integers(3, size=ROWS)
NUMBER = RNG.normal(size=ROWS).round(2)
DAYS = pd.DatetimeIndex(pd.Timestamp("2020-02-29") + pd.to_timedelta(RNG.integers(900, size=ROWS), unit="D"))


def table(**columns):
    return pd.DataFrame({"x": NUMBER, **columns})


def predicted(network, fitted, asked, **settings):
    """Probabilities of all rows after a fit to them; columns may come in other types."""
    return PFNClassifier(network, members=4, **settings).fit(fitted, Y).predict_proba(asked)


LEVELS = {  # one nominal column in many types
    "float": lambda v: pd.Categorical(v.astype(float)),
    "text": lambda v: pd.Categorical(v.astype(str)),
    "text of floats": lambda v: pd.Categorical(v.astype(float).astype(str)),
    "spaces": lambda v: [f" {k}\t" for k in v],
    "other order": lambda v: pd.Categorical(v, categories=[3, 17, 1, 0, 2]),
    "ordered": lambda v: pd.Categorical(v, categories=[2, 1, 3, 0], ordered=True),
    "integers": lambda v: v,
    "single precision": lambda v: v.astype(np.float32),
    "small integers": lambda v: v.astype(np.int8),
    "nullable": lambda v: pd.array(v, dtype="Int64"),
    "objects": lambda v: pd.Series(list(v), dtype=object),
    "decimals": lambda v: [Decimal(int(k)) for k in v],
    "arrow": lambda v: pd.array(v, dtype="int64[pyarrow]"),
    "arrow text": lambda v: pd.array(v.astype(str), dtype="string[pyarrow]"),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_the_type_of_a_level_means_nothing(network, kind):
    """As integers in fit and, with one missing, as floats later, every level used to be unseen."""
    first, other = table(level=pd.Categorical(LEVEL)), table(level=LEVELS[kind](LEVEL))
    expected = predicted(network, first, first)
    np.testing.assert_array_equal(predicted(network, first, other), expected)
    np.testing.assert_array_equal(predicted(network, other, first, nominal=["level"]), expected)
    missing = other.copy()
    missing["level"] = missing["level"].astype(object).where(np.arange(ROWS) > 0, None)
    np.testing.assert_array_equal(predicted(network, first, missing)[1:], expected[1:])


NUMBERS = {  # one numeric column in many types
    "objects": lambda v: pd.Series(list(v), dtype=object),
    "decimals": lambda v: [Decimal(str(k)) for k in v],
    "fractions": lambda v: [Fraction(str(k)) for k in v],
    "nullable": lambda v: pd.array(v, dtype="Float64"),
    "arrow": lambda v: pd.array(v, dtype="float64[pyarrow]"),
    "sparse": lambda v: pd.arrays.SparseArray(v),
    "single precision": lambda v: v.astype(np.float32),
    "nullable single precision": lambda v: pd.array(v.astype(np.float32), dtype="Float32"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_numbers_in_every_type(network, kind):
    other = table()[[]].assign(x=NUMBERS[kind](NUMBER))
    expected = predicted(network, table(), table())
    np.testing.assert_array_equal(predicted(network, other, other), expected)
    np.testing.assert_array_equal(predicted(network, table(), other), expected)


WRITTEN = [  # one number written in many ways
    "{}",
    "{:e}",
    "{:+}",
    " {} ",
    "{}%",
    "$ {}",
    "€{}",
    "{} €",
    "({})",
    "1{:07.2f}",
    "{:,.3f}",
    "{:.4f}",
    "{:E}",
]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("change", [("", ""), ("-", "−"), ("-", "–"), (".", ",")])
def test_text_that_reads_as_numbers_is_refused(network, written, change):
    text = [written.format(v).replace(*change) for v in NUMBER]
    with pytest.raises(ValueError, match="column 't' is text that reads as numbers"):
        predicted(network, table(t=text), table(t=text))
    with pytest.raises(ValueError, match="column 'x' held numbers when fitted, and now text such as"):
        predicted(network, table(), table().assign(x=text))


def test_numbers_beside_a_mark_for_missing_ones_are_refused(network):
    marked = [v if i % 5 else "?" for i, v in enumerate(NUMBER)]
    with pytest.raises(ValueError, match=r"column 't' mixes numbers such as .* and text such as '\?'"):
        predicted(network, table(t=marked), table())
    with pytest.raises(ValueError, match="column 't' is text that reads as numbers"):
        predicted(network, table(t=list(map(str, marked))), table())


DATES = {
    "seconds": lambda d: d.as_unit("s"),
    "days": lambda d: list(d.date),
    "datetimes": lambda d: pd.Series(d.to_pydatetime(), dtype=object),
    "periods": lambda d: d.to_period("D"),
    "arrow": lambda d: pd.array(d.as_unit("us"), dtype="timestamp[us][pyarrow]"),
}


@pytest.mark.parametrize("kind", DATES)
def test_dates_are_days(network, kind):
    first, other = table(d=DAYS.as_unit("ns")), table(d=DATES[kind](DAYS))
    expected = predicted(network, first, first)
    number = table(d=(DAYS - pd.Timestamp(0)) / timedelta(days=1))
    np.testing.assert_array_equal(predicted(network, number, number), expected)
    np.testing.assert_array_equal(predicted(network, other, first), expected)
    np.testing.assert_array_equal(predicted(network, first, other), expected)
    length = table(d=DAYS - pd.Timestamp(0))
    np.testing.assert_array_equal(predicted(network, length, length), expected)
    gone = first.assign(d=first.d.where(np.arange(ROWS) > 0))
    np.testing.assert_array_equal(predicted(network, first, gone)[1:], expected[1:])


def test_time_zones_are_one_time_and_must_be_there_or_not(network):
    naive, utc = table(d=DAYS), table(d=DAYS.tz_localize("UTC"))
    far = table(d=DAYS.tz_localize("UTC").tz_convert("Asia/Tokyo"))
    np.testing.assert_array_equal(predicted(network, utc, far), predicted(network, utc, utc))
    for one, other in ((naive, utc), (utc, naive)):
        with pytest.raises(ValueError, match=r"column 'd': dates had .* time zone"):
            predicted(network, one, other)
    both = [*DAYS[:5], *DAYS.tz_localize("UTC")[5:]]
    with pytest.raises(ValueError, match="column 'd': some dates have a time zone and some have none"):
        predicted(network, table(d=pd.Series(both, dtype=object)), naive)


@pytest.mark.parametrize(
    ("fitted", "asked", "says"),
    [
        (DAYS, NUMBER, "'c' held dates when fitted, and now numbers"),
        (DAYS, DAYS.strftime("%Y-%m-%d"), "'c' held dates when fitted, and now text"),
        (NUMBER, DAYS, "'c' held numbers when fitted, and now dates"),
        (DAYS.strftime("%Y-%m-%d"), DAYS, "'c' is text that reads as dates"),
        ([[1.0]] * ROWS, NUMBER, "'c' holds values of type list"),
        (NUMBER + 0j, NUMBER, "'c' holds values of type complex"),
        (2**53 + LEVEL, NUMBER, "'c' holds integers beyond 2"),
        ([True, 2.5] * (ROWS // 2), NUMBER, "'c' mixes booleans such as True and numbers such as 2.5"),
        (np.where(LEVEL > 1, "a", "b"), LEVEL, "'c' has none of the levels it was fitted on, such as 'a'"),
        (pd.Categorical(LEVEL), np.where(LEVEL > 1, "a", "b"), "'c' has none of the levels it was fitted on"),
        (NUMBER, np.where(NUMBER > 0, np.inf, 1.0), "infinity"),
    ],
)
def test_what_cannot_be_read_alike_is_refused_by_name(network, fitted, asked, says):
    with pytest.raises(ValueError, match=says) as refusal:
        predicted(network, table(c=fitted), table(c=asked))
    assert "\n" not in str(refusal.value)


def test_truths_are_one_in_every_type(network):
    true = NUMBER > 0
    first = table(t=true)
    expected = predicted(network, first, first)
    lower = np.char.lower(true.astype(str))
    for other in (true.astype(int), true.astype(float), true.astype(str), lower, pd.array(true, dtype="boolean")):
        np.testing.assert_array_equal(predicted(network, first, table(t=other)), expected)
    for other in (true.astype(str), pd.Categorical(true.astype(int)), list(true)):
        np.testing.assert_array_equal(predicted(network, table(t=other), first), expected)


@pytest.mark.parametrize("empty", [[None] * ROWS, np.full(ROWS, np.nan), pd.array([pd.NA] * ROWS, dtype="Int64")])
def test_a_column_empty_in_fit_says_nothing_later(network, empty):
    expected = predicted(network, table(), table())
    for later in (["red"] * ROWS, NUMBER, DAYS, [None] * ROWS):
        np.testing.assert_array_equal(predicted(network, table(e=empty), table(e=later)), expected)


def test_large_integers_stay_apart_as_levels(network):
    ids = 2**53 + LEVEL
    expected = predicted(network, np.c_[LEVEL], np.c_[LEVEL], nominal=[0])
    np.testing.assert_array_equal(predicted(network, np.c_[ids], np.c_[ids], nominal=[0]), expected)
    frame = pd.DataFrame({"id": pd.Categorical(ids)})
    np.testing.assert_array_equal(predicted(network, frame, frame), expected)


@settings(max_examples=15, deadline=None)
@given(
    st.permutations(range(ROWS)),
    st.integers(2, 30),
    st.sampled_from(["text", "category", "integers"]),
    st.integers(0, 5),
)
def test_the_order_of_rows_means_nothing(order, levels, kind, seed):
    """Levels used to be numbered as they appear, so predictions moved with the order of labelled rows."""
    small = made_network()
    found = np.random.default_rng(seed).integers(levels, size=ROWS)
    column = {"text": np.char.add("l", found.astype(str)), "category": pd.Categorical(found), "integers": found}[kind]
    x = table(level=column, more=np.where(LEVEL > 1, "no", "yes"))
    classifier = PFNClassifier(small, members=2, nominal=["level"])
    expected = classifier.fit(x, Y).predict_proba(x)
    shuffled = classifier.fit(x.iloc[order], Y[order]).predict_proba(x)
    np.testing.assert_allclose(shuffled, expected, atol=1e-4)


def made_network():
    import torch

    torch.manual_seed(0)
    made = pfn.Network(pfn.Shape(width=32, layers=2, heads=2, hidden=64)).eval()
    for layer in made.layers:
        torch.nn.init.normal_(layer.out.weight, std=0.2)
        torch.nn.init.normal_(layer.down.weight, std=0.2)
    return made


def test_columns_are_known_by_name(network):
    x = pd.DataFrame(RNG.normal(size=(ROWS, 3)), columns=list("abc"))
    classifier = PFNClassifier(network, members=2).fit(x, Y)
    for wrong in (x[["b", "a", "c"]], x.rename(columns={"a": "z"}), x[["a", "b"]], x.assign(d=0.0)):
        with pytest.raises(ValueError, match="feature names"):
            classifier.predict_proba(wrong)
    with pytest.raises(ValueError, match="column 'a' more than once"):
        PFNClassifier(network).fit(x[["a", "b", "a"]], Y)
    numbered = x.set_axis([0, 1, 2], axis=1)  # scikit-learn compares names that are text only
    for fitted, asked in (([0, 1, 2], [1, 0, 2]), ([1, 0, 2], [0, 1, 2])):
        with pytest.raises(ValueError, match="in another order"):
            PFNClassifier(network, members=1).fit(numbered[fitted], Y).predict_proba(numbered[asked])


def test_tables_of_other_packages(network):
    arrow = pytest.importorskip("pyarrow")
    x = table(level=np.where(LEVEL > 1, "a", "b"), d=DAYS)
    expected = predicted(network, x, x)
    given = arrow.Table.from_pandas(x)
    np.testing.assert_array_equal(predicted(network, given, x), expected)
    np.testing.assert_array_equal(predicted(network, x, given), expected)
    with pytest.raises(ValueError, match="feature names"):
        predicted(network, x, given.select(["d", "x", "level"]))


@pytest.mark.parametrize("nominal", ["level", ["level"], [1], 1, [False, True], np.array([False, True]), ("level",)])
def test_nominal_columns_by_name_number_or_mark(network, nominal):
    x = table(level=LEVEL)
    expected = predicted(network, table(level=pd.Categorical(LEVEL)), x)
    np.testing.assert_array_equal(predicted(network, x, x, nominal=nominal), expected)


@pytest.mark.parametrize("nominal", [["lvel"], [2], [-1], [True], [0.5]])
def test_nominal_columns_that_are_none_are_refused(network, nominal):
    with pytest.raises(ValueError, match="nominal"):
        predicted(network, table(level=LEVEL), table(level=LEVEL), nominal=nominal)


def test_labels_of_other_rows_and_masked_values(network):
    x = table()
    shuffled = pd.Series(Y)[::-1]
    with pytest.raises(ValueError, match="X and y are indexed differently"):
        PFNClassifier(network).fit(x, shuffled)
    with pytest.raises(ValueError, match="drop the rows without a label"):
        PFNClassifier(network).fit(x, np.ma.array(Y, mask=Y == 2))
    with pytest.raises(ValueError, match="array of dates"):
        PFNClassifier(network).fit(DAYS.to_numpy()[:, None], Y)
    hidden = np.ma.array(np.c_[NUMBER, LEVEL], mask=np.c_[NUMBER > 1, LEVEL < 0], dtype=float)
    plain = hidden.filled(np.nan)
    np.testing.assert_array_equal(predicted(network, hidden, hidden), predicted(network, plain, plain))
    objects = plain.astype(object)
    objects[NUMBER > 1, 0] = pd.NA
    np.testing.assert_array_equal(predicted(network, objects, objects), predicted(network, plain, plain))


# Baselines


@pytest.mark.parametrize("method", ["logistic", "forest", "boosting", "catboost"])
def test_baselines_read_frames_as_they_were_fitted(method):
    if method == "catboost":
        pytest.importorskip("catboost")
    x = table(level=pd.Categorical(LEVEL), flag=pd.Categorical(np.where(NUMBER > 0, "y", "n")))
    model = baselines.BASELINES[method](0).fit(x, Y)
    expected = model.predict_proba(x)
    np.testing.assert_array_equal(model.predict_proba(x[["flag", "x", "level"]]), expected)
    for kind in ("float", "text of floats", "other order", "integers", "decimals", "arrow text"):
        np.testing.assert_array_equal(model.predict_proba(x.assign(level=LEVELS[kind](LEVEL))), expected)
    np.testing.assert_array_equal(model.predict_proba(x.assign(x=NUMBERS["decimals"](NUMBER))), expected)
    assert np.isfinite(model.predict_proba(x.assign(level=pd.Categorical([None, 9.0] * (ROWS // 2))))).all()
    with pytest.raises(ValueError, match="lacks"):
        model.predict_proba(x[["x", "level"]])
    with pytest.raises(ValueError, match="has \\['more'\\] besides"):
        model.predict_proba(x.assign(more=1.0))
    with pytest.raises(ValueError, match="column 'x' held numbers when fitted, and now text"):
        model.predict_proba(x.assign(x=NUMBER.astype(str)))
    dates = table(d=DAYS, o=pd.Series(list(NUMBER), dtype=object))
    made = baselines.BASELINES[method](0)
    days = table(d=(DAYS - pd.Timestamp(0)) / timedelta(days=1), o=NUMBER)
    np.testing.assert_array_equal(
        made.fit(dates, Y).predict_proba(dates), baselines.BASELINES[method](0).fit(days, Y).predict_proba(days)
    )


def test_catboost_takes_missing_levels():
    pytest.importorskip("catboost")
    x = table(level=pd.Categorical(np.where(LEVEL > 1, "a", "b"))).astype({"level": object})
    x.loc[::4, "level"] = None
    x = x.astype({"level": "category"})
    np.testing.assert_allclose(baselines.CatBoost(0).fit(x, Y).predict_proba(x).sum(1), 1)


@pytest.mark.parametrize("method", ["logistic", "forest", "boosting", "catboost"])
def test_baselines_know_labels_by_value_and_row(method):
    if method == "catboost":
        pytest.importorskip("catboost")
    x = table(level=pd.Categorical(LEVEL))
    make = lambda: baselines.BASELINES[method](0)
    with pytest.raises(ValueError, match="indexed differently"):
        make().fit(x, pd.Series(Y)[::-1])
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        make().fit(x, NUMBER + 0.005)
    with pytest.raises(ValueError, match="NaN"):
        make().fit(x, np.where(Y == 2, np.nan, Y))
    true = make().fit(x, Y == 1)
    assert true.classes_.tolist() == [False, True]
    named = make().fit(x, np.where(Y == 1, "yes", "no"))
    np.testing.assert_array_equal(named.predict_proba(x), true.predict_proba(x))
    assert (named.predict(x) == np.where(true.predict(x), "yes", "no")).all()


def test_a_suite_reads_numbers_of_every_type(monkeypatch):
    from types import SimpleNamespace

    x = pd.DataFrame({"n": NUMBERS["decimals"](NUMBER), "d": list(DAYS.date), "t": LEVEL.astype(str)})
    target = pd.Series(np.array(["a", "b", "c"])[Y])
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **_: SimpleNamespace(data=x, target=target))
    data = suite.load("openml:1")
    assert data.x.n.tolist() == NUMBER.tolist()
    assert [isinstance(kind, pd.CategoricalDtype) for kind in data.x.dtypes] == [False, False, True]
    assert suite.tags(data)["nominal"] == 1


def test_rows_of_no_group_are_refused(monkeypatch):
    frame = suite.simulated().assign(group=lambda f: f.group.where(f.index > 0))
    monkeypatch.setattr(suite, "simulated", lambda: frame)
    with pytest.raises(ValueError, match="group is missing in some rows"):
        suite.load("simulated", suite.FAIRNESS)


def test_marks_of_an_encoder_are_one_a_column():
    x = np.c_[NUMBER, LEVEL]
    make = lambda nominal: Encoder(nominal, rng=np.random.default_rng(0))
    expected = make(np.array([False, True])).fit(x).transform(x)
    np.testing.assert_array_equal(make([0, 1]).fit(x).transform(x), expected)
    with pytest.raises(ValueError, match="nominal must be True/False"):
        make([2])
    for wrong in ([1], [0, 1, 1]):  # a number of a column is no mark
        with pytest.raises(ValueError, match="the table has 2 columns"):
            make(wrong).fit(x)
    with pytest.raises(ValueError, match="the table has 3 columns"):
        make([0, 1]).fit(x).transform(np.c_[x, x[:, 0]])


@pytest.mark.parametrize("kind", [lambda v: (v,), lambda v: v.encode(), lambda v: pd.Timestamp(0)])
def test_levels_of_a_type_without_a_meaning_here_are_refused(kind):
    """They used to be so many unknown levels, and so missing values."""
    known = Levels(pd.Series(["x", "y"]))
    with pytest.raises(ValueError, match="none of the levels it was fitted on"):
        known.codes(pd.Series([kind(v) for v in "xyx"]), "column 'c'")
    assert np.isnan(known.codes(pd.Series(["z"]), "column 'c'")).all()


@pytest.mark.parametrize("method", ["logistic", "boosting", "catboost"])
def test_baselines_read_truths_and_empty_columns_as_fitted(method):
    """Truths that came as 0 and 1 used to be levels unknown to logistic regression, and to stop boosting."""
    if method == "catboost":
        pytest.importorskip("catboost")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.random(60) > 0.5, "c": rng.choice(list("xyz"), 60)})
    frame = frame.astype({"c": "category"})
    model = baselines.BASELINES[method](0).fit(frame, (frame.b ^ (frame.c == "x")).to_numpy())
    expected = model.predict_proba(frame)
    for kind in (int, float, object, str, "boolean", "category"):
        np.testing.assert_allclose(model.predict_proba(frame.assign(b=frame.b.astype(kind))), expected)
    assert np.ptp(expected[:, 1]) > 0.1
    assert np.isfinite(model.predict_proba(frame.assign(c=None, b=None))).all()
