"""Columns by name, rows side by side, labels by value: the same in every container and type, or one line that says why."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compendium import inputs

CONTAINERS = [
    list,
    tuple,
    np.array,
    pd.Series,
    lambda v: np.array(v)[:, None],
    lambda v: pd.DataFrame({"v": v}),
    lambda v: np.array(v, object),
    lambda v: pd.Series(v).astype("category"),
    lambda v: pd.Series(v, dtype=object),
]
truths = st.lists(st.booleans(), min_size=1, max_size=20)


@given(truths, st.sampled_from(CONTAINERS), st.sampled_from([bool, int, float, np.int8, np.float32, np.bool_]))
def test_truths_are_read_in_every_type(values, container, kind):
    found = inputs.binary(container([kind(v) for v in values]), "y")
    assert found.dtype == bool
    assert found.tolist() == values


@given(truths, st.sampled_from(CONTAINERS), st.sampled_from([("no", "yes"), (-1, 1), (1, 2), (0.2, 0.8), ("0", "1")]))
def test_other_labels_are_refused_with_a_remedy_that_works(values, container, pair):
    labels = [pair[v] for v in values]
    if set(labels) == {1}:
        return
    with pytest.raises(ValueError, match="y must be True/False or 0/1") as refusal:
        inputs.binary(container(labels), "y")
    said = str(refusal.value)
    assert "\n" not in said
    assert "np." not in said
    remedy = said.split("such as ")[1]
    made = eval(remedy, {"y": np.array(labels)})
    assert made.shape == (len(labels),)


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA, pd.NaT])
def test_missing_labels_are_refused(gone):
    with pytest.raises(ValueError, match="y has missing values"):
        inputs.binary(pd.Series([True, gone], dtype=object), "y")
    with pytest.raises(ValueError, match="no class"):
        inputs.codes(pd.Series([1, gone], dtype=object), [0, 1])
    with pytest.raises(ValueError, match="missing"):
        inputs.binary(np.ma.array([1, 0], mask=[True, False]), "y")


NAMES = st.sampled_from([["a", "b", "c"], [1, 2, 3], [0.5, 1.5, 2.5], [10, 9, 8], ["1", "10", "2"], [-1, 0, 1]])


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=20), NAMES, st.sampled_from(CONTAINERS), st.permutations(range(3))
)
def test_codes_are_places_among_the_classes(numbers, names, container, order):
    labels = container([names[k] for k in numbers])
    assert inputs.codes(labels, names).tolist() == numbers
    assert inputs.codes(labels, np.array(names)).tolist() == numbers
    shuffled = [names[k] for k in order]
    assert [shuffled[k] for k in inputs.codes(labels, shuffled)] == [names[k] for k in numbers]
    with pytest.raises(ValueError, match="no class of the model") as refusal:
        inputs.codes(labels, ["other", *[n for n in names if n != names[numbers[0]]]])
    assert "np." not in str(refusal.value)


def test_numbers_are_equal_across_types_and_text_is_not():
    for kind in (int, float, np.int8, np.float64, np.float32):
        assert inputs.codes([kind(1), kind(2)], [1, 2]).tolist() == [0, 1]
        assert inputs.codes([1, 2], [kind(1), kind(2)]).tolist() == [0, 1]
    for labels, classes in ((["1"], [1, 2]), ([1], ["1", "2"]), ([1, "2"], [1, 2])):
        with pytest.raises(ValueError, match="no class"):
            inputs.codes(labels, classes)
    assert inputs.codes([1, "a"], [1, "a"]).tolist() == [0, 1]  # numpy would make text of both


@pytest.mark.parametrize("shape", [(), (2, 2), (3, 1, 1), (1, 3)])
def test_labels_are_one_a_row(shape):
    with pytest.raises(ValueError, match="one value a row"):
        inputs.vector(np.zeros(shape), "y")


names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@given(names, names)
def test_columns_are_the_same_in_the_same_order_or_refused(given_names, wanted):
    frame = pd.DataFrame(np.zeros((2, len(given_names))), columns=given_names)
    if given_names == wanted:
        inputs.same_columns(frame, wanted, "the model was fitted on")
        return
    with pytest.raises(ValueError, match="the model was fitted on") as refusal:
        inputs.same_columns(frame, wanted, "the model was fitted on")
    said = str(refusal.value)
    assert "\n" not in said
    for column in set(given_names) ^ set(wanted):
        assert repr(column) in said


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_numbers_as_names_have_an_order_too(one, other):
    """0 .. d-1 are no names, unless the other side shows that they are."""
    frame = pd.DataFrame(np.zeros((2, 4)), columns=one)
    if one == other:
        inputs.same_columns(frame, other, "known")
    else:
        with pytest.raises(ValueError, match="in another order"):
            inputs.same_columns(frame, other, "known")
    inputs.same_columns(pd.DataFrame(np.zeros((2, 4))), list("abcd"), "known")
    inputs.same_columns(np.zeros((2, 4)), other, "known")
    inputs.same_columns(frame, None, "known")


def test_columns_of_other_tables_and_columns_that_come_twice():
    arrow = pytest.importorskip("pyarrow")
    assert inputs.columns(arrow.table({"a": [1], "b": [2]})) == ["a", "b"]
    assert inputs.columns(np.zeros((1, 2))) is None
    with pytest.raises(ValueError, match="'a' more than once"):
        inputs.same_columns(pd.DataFrame([[1, 2]], columns=["a", "a"]), ["a", "b"], "known")


@given(st.permutations(range(5)), st.sampled_from(CONTAINERS[:3]))
def test_rows_are_compared_by_index_where_both_have_one(order, container):
    series, other = pd.Series(range(5)), pd.Series(range(5), index=order)
    inputs.same_rows(y=container(range(5)), other=other)
    if order == list(range(5)):
        inputs.same_rows(y=series, other=other)
    else:
        with pytest.raises(ValueError, match="y and other are indexed differently"):
            inputs.same_rows(y=series, p=np.zeros((5, 2)), other=other)
    with pytest.raises(ValueError, match="as many rows needed: y has 5, other has 4"):
        inputs.same_rows(y=series, other=container(range(4)))


def test_a_frame_may_have_a_column_called_column_names():
    frame = pd.DataFrame({"column_names": [1, 2], "columns": [3, 4]})
    assert inputs.columns(frame) == ["column_names", "columns"]


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=1, max_size=9), st.sampled_from(CONTAINERS))
def test_numbers_are_read_in_every_type(values, container):
    found = inputs.numbers(container(values), "v")
    assert found.dtype == float
    np.testing.assert_array_equal(found, [np.nan if v is None else v for v in values])


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2"],
        [b"1"],
        [1j],
        np.array([1j]),
        pd.to_datetime(["2020", None]),
        pd.to_timedelta([1, 2]),
        [1, "2"],
        [pd.Timestamp(0)],
        [[1], [1, 2]],
        np.array(["2020"], "M8[D]"),
        pd.Series(["1"]),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(values):
    """A missing date used to be the lowest of all, and dates to have a mean in an unknown unit."""
    with pytest.raises(ValueError, match=r"^v must (be numbers|hold one value a row).*$"):
        inputs.numbers(values, "v")


def test_labels_that_cannot_be_looked_up_are_unknown():
    with pytest.raises(ValueError, match=r"y holds \[1\], which is no class"):
        inputs.codes(pd.Series([[1], "a"]), ["a"], "y")
