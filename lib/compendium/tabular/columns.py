"""What the columns of a table hold, learnt from labelled rows, and read alike in rows to predict.

| a column of | is | and is read as |
|---|---|---|
| numbers, whatever their type (Decimal, nullable, objects) | numeric | float64 |
| dates, durations | numeric | days, dates since 1970 |
| categories, booleans, text; columns marked as nominal | nominal | the number of its level |
| no value at all | empty | missing, whatever it holds later |

The type of a level means nothing: 1, 1.0, Decimal(1) and "1" are one, so are True, "true" and 1. Spaces around text do
not count. Levels are numbered by value, numbers by size before text by letter, so that neither the order of rows nor
that of categories matters. What cannot be read in one way only raises ValueError: numbers mixed with text, text of
more than ten values that reads as numbers or dates, text where numbers were learnt, and levels of another kind.
"""

import re
from datetime import date, datetime, timedelta
from numbers import Complex, Number, Real

import numpy as np
import pandas as pd
from pandas.api import types

from compendium.tabular.encode import ONE_HOT

EXACT = 2**53  # from there on, not every integer has a float64 of its own
_PLAIN = re.compile(r"[-+]?(\d{1,40}(\.\d*)?|\.\d+)(e[-+]?\d{1,3})?", re.IGNORECASE)
_NUMERAL = re.compile(
    r"[(]?\s*[-+\N{MINUS SIGN}\N{EN DASH}]?\s*[$€£¥]?\s*[-+\N{MINUS SIGN}\N{EN DASH}]?(\d[\d.,'_\s]*|[.,]\d+)"
    r"(e[-+\N{MINUS SIGN}\N{EN DASH}]?\d+)?\s*[%€$£¥]?\s*[)]?",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([ T].*)?")


def framed(X):
    """A table with column names, such as polars' and Arrow's, as a pandas data frame; anything else as it is."""
    if not isinstance(X, pd.DataFrame) and hasattr(X, "to_pandas") and hasattr(X, "columns"):
        X = X.to_pandas()
    if isinstance(X, pd.DataFrame) and X.columns.has_duplicates:
        twice = X.columns[X.columns.duplicated()][0]
        raise ValueError(f"X has the column {twice!r} more than once: give each column a name of its own")
    return X


def plain(X):
    """An array whose numbers are read as they are meant: masked values and all marks of missing ones become nan.

    Raises ValueError for dates, whose numbers would depend on their unit; anything else is returned as it is.
    """
    if isinstance(X, np.ma.MaskedArray):
        return X.astype(np.float64).filled(np.nan)
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("M", "m"):
        raise ValueError("X is an array of dates or durations: pass a data frame, in which they are read as days")
    if kind == "O" and np.ndim(X) == 2:
        return np.where(pd.isna(X), np.nan, X)
    return X


def positions(nominal, names: list | None, width: int) -> np.ndarray:
    """(width,) bool, which columns are marked.

    nominal: None, or names and numbers of columns, one or several, or a bool for each column. Raises ValueError for
    any other.
    """
    marked = np.zeros(width, bool)
    if nominal is None:
        return marked
    given = [nominal] if isinstance(nominal, (str, int, np.integer)) else list(nominal)
    if given and all(isinstance(one, (bool, np.bool_)) for one in given):
        if len(given) != width:
            raise ValueError(f"nominal has {len(given)} marks for {width} columns: give one a column, or their names")
        return np.array(given, bool)
    for one in given:
        if names is not None and one in names and not isinstance(one, (bool, np.bool_)):
            marked[names.index(one)] = True
        elif isinstance(one, (int, np.integer)) and not isinstance(one, bool) and 0 <= one < width:
            if names is not None and any(isinstance(name, (int, np.integer)) for name in names):
                raise ValueError(f"nominal: no column is named {one}, and names are numbers here: give names")
            marked[one] = True
        else:
            among = ", ".join(map(repr, names)) if names is not None else f"numbers from 0 to {width - 1}"
            raise ValueError(f"nominal: {one!r} is no column of the table: choose among {among}")
    return marked


def _kind(value) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "booleans"
    if isinstance(value, (date, datetime, np.datetime64, pd.Period)):
        return "dates"
    if isinstance(value, (timedelta, np.timedelta64)):
        return "durations"
    if isinstance(value, str):
        return "text"
    unordered = isinstance(value, Complex) and not isinstance(value, Real)
    return "numbers" if isinstance(value, Number) and not unordered else type(value).__name__


def contents(column: pd.Series) -> list[str]:
    """Kinds of the values that are there, sorted: booleans, numbers, dates, durations, text, or names of other types.

    Empty for a column without a value, unless its type says what it would hold.
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return sorted({_kind(value) for value in column.dropna().unique()})
    for kind, of in (
        ("booleans", types.is_bool_dtype),
        ("numbers", is_numeric),
        ("dates", types.is_datetime64_any_dtype),
        ("durations", types.is_timedelta64_dtype),
    ):
        if of(dtype):
            return [kind]
    return sorted({_kind(value) for value in column.dropna()})


def is_numeric(dtype) -> bool:
    return types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)


def _example(column: pd.Series, kind: str) -> str:
    found = next((value for value in column.dropna() if _kind(value) == kind), None)
    return kind if found is None else f"{kind} such as {found.item() if hasattr(found, 'item') else found!r}"


def floats(column: pd.Series, name: str) -> np.ndarray:
    """(rows,) float64, missing values nan. Raises ValueError where different integers would become one float."""
    if is_numeric(column.dtype) or types.is_bool_dtype(column.dtype):
        out = column.to_numpy(np.float64, na_value=np.nan)
        if getattr(column.dtype, "numpy_dtype", column.dtype) in (np.float16, np.float32):
            # 0.1 in single precision is meant to equal 0.1: ranks count equal values.
            out = column.to_numpy(getattr(column.dtype, "numpy_dtype", column.dtype), na_value=np.nan)
            out = out.astype(str).astype(np.float64)
    else:
        out = np.array([np.nan if gone else float(v) for v, gone in zip(column, column.isna(), strict=True)])
    large = np.abs(out) >= EXACT
    if large.any() and not types.is_float_dtype(column.dtype):
        given = column[large & np.isfinite(out)]
        if given.nunique() > len(np.unique(out[large & np.isfinite(out)])):
            raise ValueError(
                f"{name} holds integers beyond 2**53 that differ in digits a float cannot keep: subtract a constant, "
                "or make the column a category if they are names"
            )
    return out


def _days(column: pd.Series, kind: str, aware: bool) -> np.ndarray:
    """(rows,) float64 days since 1970 in universal time, or of a duration; to the microsecond."""
    if kind == "durations":
        times = column if types.is_timedelta64_dtype(column.dtype) else pd.to_timedelta(column.astype(object))
    else:
        if not types.is_datetime64_any_dtype(column.dtype):
            begins = [v.start_time if isinstance(v, pd.Period) else v for v in column.astype(object)]
            column = pd.Series(pd.to_datetime([None if pd.isna(v) else pd.Timestamp(v) for v in begins], utc=aware))
        column = pd.Series(pd.DatetimeIndex(column))
        times = (column.dt.tz_convert("UTC").dt.tz_localize(None) if aware else column) - pd.Timestamp(0)
    times = pd.Series(pd.TimedeltaIndex(times).as_unit("us"))
    return (times / pd.Timedelta(days=1)).to_numpy(np.float64)


def _aware(column: pd.Series) -> bool:
    """Whether dates have a time zone. Raises ValueError when some have and some have not."""
    if types.is_datetime64_any_dtype(column.dtype):
        kind = getattr(column.dtype, "pyarrow_dtype", column.dtype)
        return getattr(kind, "tz", None) is not None
    found = {getattr(value, "tzinfo", None) is not None for value in column.dropna()}
    if len(found) > 1:
        raise ValueError("some dates have a time zone and some have none")
    return found == {True}


def spelt(value) -> str:
    """A level as text, the same for every type that a number, a truth or a date may have."""
    kind = _kind(value)
    if kind == "booleans":
        return str(bool(value))
    if kind == "dates" and not isinstance(value, pd.Period):
        return pd.Timestamp(value).isoformat()
    if kind != "numbers":
        return str(value).strip()
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    number = float(str(value)) if isinstance(value, np.floating) else float(value)  # float32's 0.1 is 0.1
    return str(int(value)) if number.is_integer() else repr(number)


def _number(text: str) -> str | None:
    """The number that a level's text states, as `spelt` writes it, truths being 1 and 0; None for no number."""
    if text.casefold() in ("true", "false"):
        return str(int(text.casefold() == "true"))
    if not _PLAIN.fullmatch(text):
        return None
    return str(int(text)) if text.lstrip("+-").isdigit() else spelt(float(text))


class Levels:
    """The levels of a nominal column: `names`, in order of value, and the number of each."""

    def __init__(self, column: pd.Series):
        order = lambda text: (0, float(number), text) if (number := _number(text)) is not None else (1, 0.0, text)
        values = distinct(column)[1]
        self.kinds = {_kind(value) for value in values}
        self.names = sorted({spelt(value) for value in values}, key=order)
        self.number = {name: k for k, name in enumerate(self.names)}
        numbers = [_number(name) for name in self.names]
        self.alias = {n: k for k, n in enumerate(numbers) if n is not None and numbers.count(n) == 1}
        self.numeric = {n is not None for n in numbers}

    def find(self, value) -> int:
        """The number of a value's level; -1 for one that is not known."""
        text = spelt(value)
        return self.number.get(text, self.alias.get(_number(text), -1))

    def codes(self, column: pd.Series, name: str) -> np.ndarray:
        """(rows,) float numbers of levels; nan for missing values and for levels not known.

        Raises ValueError when no value is known and all are of another kind, numbers for text or text for numbers.
        """
        place, values = distinct(column)
        found = np.array([self.find(value) for value in values] + [-1])
        if self.names and len(values) and (found < 0).all():
            numeric = {_number(spelt(value)) is not None for value in values}
            strange = {_kind(value) for value in values} - {"booleans", "numbers", "text"}
            if not numeric & self.numeric or (strange and not strange & self.kinds):
                raise ValueError(
                    f"{name} has none of the levels it was fitted on, such as {self.names[0]!r}, but others such as "
                    f"{spelt(values[0])!r}: pass it as it was in fit"
                )
        return np.where(found < 0, np.nan, found)[place]


def distinct(column: pd.Series) -> tuple[np.ndarray, list]:
    """`(place, values)`: the different values, and where in them each row's is, -1 where it is missing."""
    place, values = pd.factorize(column)
    plain = isinstance(column.dtype, (np.dtype, pd.CategoricalDtype))  # keeps float32 what it is
    return place, list(np.asarray(values, None if plain else object))


class Columns:
    """Reads the columns of a table: `kinds` says what each is, `levels` has the levels of nominal ones by position."""

    def fit(self, columns: list[pd.Series], names: list, nominal: np.ndarray) -> "Columns":
        """columns: one series each; names: what to call them; nominal: (columns,) bool, those marked."""
        self.names = [f"column {name!r}" for name in names]
        self.kinds, self.aware, self.levels = [], {}, {}
        for j, (column, name) in enumerate(zip(columns, self.names, strict=True)):
            held = contents(column)
            marked = nominal[j] or isinstance(column.dtype, pd.CategoricalDtype)
            if not marked:
                self._refuse(column, held, name)
            if marked or (held in (["booleans"], ["text"]) and not column.isna().all()):
                self.kinds.append("names")
                self.levels[j] = Levels(column)
            else:
                self.kinds.append("empty" if column.isna().all() else held[0])
            if self.kinds[-1] == "dates":
                self.aware[j] = self._zone(column, name)
        self.nominal = np.array([kind == "names" for kind in self.kinds])
        return self

    @staticmethod
    def _zone(column: pd.Series, name: str) -> bool:
        try:
            return _aware(column)
        except ValueError as error:
            raise ValueError(f"{name}: {error}: convert them with pandas.to_datetime(..., utc=True)") from None

    @staticmethod
    def _refuse(column: pd.Series, held: list[str], name: str) -> None:
        """Raise ValueError for a column that could be read in several ways, or in none."""
        if len(held) > 1:
            mixed = " and ".join(_example(column, kind) for kind in held)
            raise ValueError(f"{name} mixes {mixed}: give missing values as None or nan, or make it a category")
        if held and held[0] not in ("booleans", "numbers", "dates", "durations", "text"):
            raise ValueError(f"{name} holds values of type {held[0]}: make them numbers or text")
        if held != ["text"]:
            return
        found = pd.unique(column.dropna().astype(str).str.strip())
        numbers = [text for text in found if _NUMERAL.fullmatch(text)]
        dates = [text for text in found if _DATE.fullmatch(text)]
        for kind, these, remedy in (("dates", dates, "to_datetime"), ("numbers", numbers, "to_numeric")):
            if len(these) > max(ONE_HOT, len(found) / 2):
                raise ValueError(
                    f"{name} is text that reads as {kind}, such as {these[0]!r}: convert it with pandas.{remedy}, or "
                    "make it a category if these are names"
                )

    def transform(self, columns: list[pd.Series]) -> np.ndarray:
        """(rows, columns) float64: codes of levels, numbers and days; nan where missing or not known.

        Raises ValueError naming a column that holds something else than in `fit`.
        """
        out = np.full((len(columns[0]), len(columns)), np.nan)
        for j, (column, kind, name) in enumerate(zip(columns, self.kinds, self.names, strict=True)):
            if kind == "names":
                out[:, j] = self.levels[j].codes(column, name)
            elif kind != "empty":
                out[:, j] = self._measured(column, j, kind, name)
        return out

    def _measured(self, column: pd.Series, j: int, kind: str, name: str) -> np.ndarray:
        held = contents(column)
        if column.isna().all():
            return np.full(len(column), np.nan)
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(object)
        if kind == "numbers" and held == ["booleans"]:
            return floats(column, name)
        if strange := [other for other in held if other != kind]:
            raise ValueError(
                f"{name} held {kind} when fitted, and now {_example(column, strange[0])}: pass {kind}, missing values "
                "as None or nan"
            )
        if kind == "numbers":
            return floats(column, name)
        if kind == "dates" and self._zone(column, name) != self.aware[j]:
            had, has = ("a time zone", "none") if self.aware[j] else ("no time zone", "one")
            raise ValueError(f"{name}: dates had {had} when fitted, and now have {has}: convert them alike")
        return _days(column, kind, self.aware.get(j, False))
