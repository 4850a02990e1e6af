"""What a caller hands over: columns by name, rows side by side, labels by value. Checked, never guessed.

`numpy.asarray` drops what a data frame knows: the names and order of its columns, the order of its rows, the type of
its labels. Every function of the compendium that takes frames or labels from outside asks here first.

    inputs.same_columns(X, model.feature_names_in_, "the model was fitted on")
    inputs.same_rows(y=y, predicted=predicted)          # equal lengths; equal indices where both have one
    inputs.binary(y, "y")                               # bool array from True/False or 0/1, or a refusal
    inputs.codes(y, model.classes_, "y")                # class numbers by value: "cat", "dog" -> 0, 1
"""

from collections.abc import Hashable, Sequence
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd


def columns(X) -> list | None:
    """The column names of a data frame (also polars', Arrow's and the like); None for anything without names."""
    if isinstance(X, pd.DataFrame):  # one of its columns may be called column_names
        return list(X.columns)
    names = getattr(X, "column_names", getattr(X, "columns", None))
    return None if names is None or callable(names) else list(names)


def same_columns(X, names: Sequence | None, whose: str, name: str = "X") -> None:
    """Raise ValueError unless the columns of `X` are `names` in that order; without names on a side, nothing is known.

    whose: who has these names, such as "the model was fitted on". A frame whose columns are the numbers 0 .. d-1, as
    pandas gives to an array, has no names.
    """
    given = columns(X)
    if given is None or names is None or given == list(names):
        return
    names = list(names)
    nameless = list(range(len(given))) == given or list(range(len(names))) == names
    if nameless and set(names) != set(given) and len(names) == len(given):
        return
    if len(set(given)) < len(given):
        twice = next(column for column in given if given.count(column) > 1)
        raise ValueError(f"{name} has the column {twice!r} more than once: give each column a name of its own")
    if set(given) == set(names):
        raise ValueError(
            f"the columns of {name} are those {whose} in another order: pass {name}[{_shown(names)}], "
            "or attributions and predictions would belong to other columns"
        )
    gone = [column for column in names if column not in set(given)]
    extra = [column for column in given if column not in set(names)]
    parts = [f"lacks {_shown(gone)}"] * bool(gone) + [f"has {_shown(extra)} besides"] * bool(extra)
    raise ValueError(f"{name} {' and '.join(parts)}: its columns must be those {whose}, in that order")


def _shown(names: Sequence, most: int = 6) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"[{shown}, ...]" if len(names) > most else f"[{shown}]"


def vector(values, name: str) -> np.ndarray:
    """(n,) array from a list, an array, a series, or a table of one column. Raises ValueError for other shapes.

    Lists that mix types stay what they are, where numpy would make text of all; masked values become None.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        values = np.where(np.ma.getmaskarray(values), None, values.data.astype(object))
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths; tensors with a gradient
        raise ValueError(f"{name} must hold one value a row: {str(error).splitlines()[0]}") from None
    if array.dtype.kind in "US" and isinstance(values, (list, tuple)) and not all(isinstance(v, str) for v in values):
        array = np.asarray(values, object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} must hold one value a row, got shape {array.shape}")
    return array


def numbers(values, name: str) -> np.ndarray:
    """(n,) float64 from real numbers and truths, whatever their type; missing values are nan.

    Raises ValueError for anything else. Text, dates and durations would become numbers too, the latter ones of a unit
    that is not seen, and a missing date the lowest of all.
    """
    array = vector(values, name)
    if array.dtype.kind not in "biufO":
        raise ValueError(
            f"{name} must be numbers, got {_item(array[0])!r}: convert them first"
            if len(array)
            else f"{name} must be numbers, got type {array.dtype}: convert them first"
        )
    if array.dtype.kind != "O":
        return np.asarray(array, float)
    missing = pd.isna(array)
    for value in array[~missing]:
        if not isinstance(value, (Real, Decimal, np.bool_)):
            raise ValueError(f"{name} must be numbers, got {value!r}: convert them first")
    return np.asarray(np.where(missing, np.nan, array), float)


def _item(value):
    return value.item() if hasattr(value, "item") else value


def same_rows(**given) -> None:
    """Raise ValueError unless all have as many rows and, where two are pandas objects, the same index.

    Two series of one length whose indices differ are about other rows, or about these in another order.
    """
    lengths = {name: _rows(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("as many rows needed: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
    indexed = {name: v.index for name, v in given.items() if isinstance(v, (pd.Series, pd.DataFrame))}
    first = next(iter(indexed), None)
    for name, index in indexed.items():
        if not index.equals(indexed[first]):
            raise ValueError(
                f"{first} and {name} are indexed differently, so their rows are not the same: align them "
                f"({name}.loc[{first}.index]), or pass arrays"
            )


def _rows(values) -> int:
    shape = getattr(values, "shape", None)
    if shape is None:
        shape = np.asarray(values, None if hasattr(values, "__array__") else object).shape
    return shape[0] if len(shape) else 0


def binary(values, name: str) -> np.ndarray:
    """(n,) bool array from True/False or the numbers 0 and 1. Raises ValueError for any other label.

    Strings are refused because any non-empty one, "no" included, is true for Python; -1 because it is, too; and
    probabilities because they are no decision yet.
    """
    array = vector(values, name)
    if pd.isna(array).any():
        raise ValueError(f"{name} has missing values: drop these rows")
    found = pd.unique(pd.Series(array, dtype=object))
    if all(isinstance(v, (bool, np.bool_, int, np.integer, float, np.floating)) and v in (0, 1) for v in found):
        return array.astype(bool)
    found = [_item(v) for v in found]
    example = max(found, key=lambda v: (isinstance(v, (int, float)), str(v)))
    remedy = f"{name} == {example!r}" if not isinstance(example, float) or example.is_integer() else f"{name} >= 0.5"
    shown = ", ".join(map(repr, found[:4]))
    raise ValueError(f"{name} must be True/False or 0/1, got {shown}: say what counts as true, such as {remedy}")


def codes(labels, classes: Sequence, name: str = "y") -> np.ndarray:
    """(n,) class numbers 0 .. K-1 of labels, found by value in `classes`. Raises ValueError for unknown labels.

    A label and a class are equal as Python has it, so 1, 1.0 and numpy's 1 are one label, and "1" is another.
    """
    array = vector(labels, name)
    place = {_item(c): k for k, c in enumerate(classes)}
    found = [place.get(v, -1) if isinstance(v, Hashable) else -1 for v in map(_item, array)]
    if -1 in found:
        strange = _item(array[found.index(-1)])
        raise ValueError(f"{name} holds {strange!r}, which is no class of the model: it knows {_shown(list(place))}")
    return np.array(found, np.int64)
