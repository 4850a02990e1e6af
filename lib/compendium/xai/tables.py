"""Tables that callers hand over: numbers or a refusal with its reason, columns by name, targets by label.

`numpy.asarray` alone would drop the names and order of columns, the mask of a masked array and the meaning of dates,
and read text that looks like a number. Every explainer and metric of this package reads its tables here.
"""

import numpy as np
import pandas as pd

from compendium import inputs

ENCODE = "encode nominal columns first, and explain the model behind the encoder (a pipeline's model[-1])"


def table(X, name: str = "X") -> np.ndarray:
    """(n, d) float64 without missing values, from an array or a data frame. Raises ValueError otherwise."""
    X = numbers(X, name)
    if X.ndim == 4:
        raise ValueError(f"{name} must be a table (rows, features), got shape {X.shape}: images go to xai.images")
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name} must be a table (rows, features), got shape {X.shape}; one row is X[i : i + 1]")
    if not np.isfinite(X).all():
        raise ValueError(
            f"{name} has missing or infinite values in {int((~np.isfinite(X)).any(1).sum())} rows: impute them"
        )
    return X


def numbers(X, name: str = "X") -> np.ndarray:
    """float64 array of any shape; missing entries are nan. Raises ValueError for what is no number, saying where.

    Categories count by their values, not by their codes; Decimal and True/False are numbers, text never is, even where
    it looks like one, and dates have no unit that a model could mean.
    """
    from scipy import sparse

    if isinstance(X, np.ndarray) and X.dtype == float and not isinstance(X, np.ma.MaskedArray):
        return np.asarray(X)
    if sparse.issparse(X):
        raise ValueError(f"{name} is a sparse matrix: pass {name}.toarray()")
    if np.ma.is_masked(X):
        raise ValueError(f"{name} has masked values: fill them, such as {name}.filled(0)")
    if isinstance(X, pd.DataFrame):
        parts = [_column(X.iloc[:, j].to_numpy(), X.columns[j], name) for j in range(X.shape[1])]
        return np.stack(parts, 1) if parts else np.empty(X.shape)
    if isinstance(X, pd.Series):
        return _column(X.to_numpy(), X.name, name)
    if hasattr(X, "detach"):  # a torch tensor
        X = X.detach().cpu().double()
    try:
        array = np.asarray(X)
    except ValueError as wrong:
        raise ValueError(f"{name} must be a table: its rows differ in length") from wrong
    if array.dtype.kind == "O" and array.ndim == 2:
        names = inputs.columns(X) or range(array.shape[1])
        return np.stack([_column(array[:, j], column, name) for j, column in enumerate(names)], 1)
    return _column(array, None, name)


def _column(values: np.ndarray, column, name: str) -> np.ndarray:
    where = f"{name}" if column is None else f"{name}: column {column!r}"
    if values.dtype.names is not None:
        raise ValueError(f"{name} is a structured array: pass pandas.DataFrame({name})")
    if values.dtype.kind in "biuf":
        return values.astype(float)
    if values.dtype.kind in "Mm":
        raise ValueError(
            f"{where} holds dates or times, which must be numbers: say in what unit, such as days since 1970"
        )
    if values.dtype.kind == "c":
        raise ValueError(f"{where} holds complex numbers: pass real and imaginary parts as columns")
    missing = pd.isna(values)
    kept = values[~missing] if values.dtype.kind == "O" else values.ravel()
    for value in kept.ravel():
        if isinstance(value, (str, bytes)):
            value = value.item() if hasattr(value, "item") else value
            raise ValueError(f"{where} must be numbers, and holds the text {value!r}: {ENCODE}")
        if isinstance(value, (complex, np.complexfloating)) or not _is_number(value):
            raise ValueError(
                f"{where} must be numbers, and holds {type(value).__name__}: turn these into numbers first"
            )
    found = np.full(values.shape, np.nan)
    found[~missing] = [float(value) for value in kept.ravel()]
    return found


def _is_number(value) -> bool:
    from decimal import Decimal
    from fractions import Fraction

    return isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating, Decimal, Fraction))


# Names -----------------------------------------------------------------------------------------------------------


def names(model) -> list | None:
    """The column names that a model was fitted with: scikit-learn's, CatBoost's, or boosters'; None if it has none."""
    for attribute in ("feature_names_in_", "feature_names_", "feature_name_"):
        try:
            found = getattr(model, attribute, None)
        except Exception:  # a property of a model that is not fitted, or was fitted without names
            continue
        if found is not None and not callable(found):
            found = list(found)
            made = [[f"{start}{j}" for j in range(len(found))] for start in ("", "f", "Column_")]  # given to arrays
            return None if found in made else found
    return None


def named(X) -> list | None:
    """The column names of a frame; None if it has none, or only the numbers 0 .. d-1, which pandas gives to arrays."""
    found = inputs.columns(X)
    return None if found is None or found == list(range(len(found))) else found


def same(given, of, whose: str, name: str) -> None:
    """Raise ValueError if a frame, or a series over the columns, has other columns than `of` (names or None).

    Numbers as names in another order than 0 .. d-1 are refused as well: they are columns of an array, moved.
    """
    if isinstance(given, pd.Series):
        given = None if isinstance(given.index, pd.RangeIndex) else given.to_frame().T
    found = named(given)
    if found is not None and of is None and _moved(found):
        raise ValueError(
            f"the columns of {name} are the numbers 0 to {len(found) - 1} in another order: put them in order, or give "
            "all frames and the model names"
        )
    if found is not None and of is not None:
        inputs.same_columns(pd.DataFrame(columns=pd.Index(found, tupleize_cols=False)), of, whose, name)


def _moved(found: list) -> bool:
    whole = all(isinstance(column, (int, np.integer)) for column in found)
    return whole and sorted(found) == list(range(len(found)))


def agreed(model, X, background=None, baseline=None) -> None:
    """Raise ValueError unless X, the background and the baseline have the columns that the model was fitted with, and
    those of each other; where a side has no names, nothing is known."""
    for name, given in (("X", X), ("background", background), ("the baseline", baseline)):
        same(given, names(model), "the model was fitted on", name)
    of = named(X)
    same(background, of, "of X", "background")
    same(baseline, of if of is not None else named(background), "of X", "the baseline")


def beside(values, X, name: str) -> np.ndarray:
    """float array of what stands beside a table, (d,) or (n, d): attributions, baselines, scales. Columns and rows of
    frames must be those of X. Raises ValueError."""
    same(values, named(X), "of X", name)
    if isinstance(X, pd.DataFrame) and isinstance(values, pd.DataFrame) and len(X) == len(values):
        inputs.same_rows(**{"X": X, name: values})
    return numbers(values, name)


def flags(values, name: str) -> np.ndarray:
    """Bool array of True/False or the numbers 0 and 1. Raises ValueError for anything else: text and probabilities
    would all count as true."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype == bool:
        return array
    if array.dtype.kind == "O":
        array = numbers(values, name)
    if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must be True/False or 0/1")
    return array.astype(bool)


# Targets ---------------------------------------------------------------------------------------------------------


def classes(model) -> list | None:
    """The labels of a classifier in the order of its outputs; None for nets and functions, which number them, and for
    regressors (CatBoost's have an empty list).

    Raises ValueError for models of several outputs.
    """
    found = getattr(model, "classes_", None)
    if found is None:
        return None
    found = list(found)
    if found and isinstance(found[0], (list, tuple, np.ndarray)):
        raise ValueError(
            f"{type(model).__name__} predicts {len(found)} labels a row: explain one at a time, by a function of X "
            "such as lambda X: model.predict_proba(X)[0]"
        )
    return found or None


def numbered(target, model, X=None):
    """The target with labels turned into class numbers; numbers stay class numbers, whatever the labels are."""
    if X is not None and isinstance(target, pd.Series):
        inputs.same_rows(X=X, target=target)
    array = np.asarray(target)
    flat = array.ravel()
    known = classes(model)
    text = array.dtype.kind in "US" or (array.dtype.kind == "O" and all(isinstance(v, (str, bytes)) for v in flat))
    truth = array.dtype.kind == "b" and known is not None and all(isinstance(v, (bool, np.bool_)) for v in known)
    if not (text and flat.size) and not truth:
        return target
    if known is None:
        who = "metrics ask a function, which" if model is None else type(model).__name__
        raise ValueError(f"target must be a class number, not {flat.tolist()[0]!r}: {who} has no labels of classes")
    found = inputs.codes(flat, known, "target")
    return found.reshape(array.shape) if array.ndim else int(found[0])


def targets(target, n: int, K: int) -> np.ndarray:
    """(n,) class numbers from one number or one a row. Raises ValueError unless all are among 0 .. K-1."""
    found = np.asarray(target.detach().cpu() if hasattr(target, "detach") else target)
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"target must be a class number, or one a row, not {found.dtype}")
    if found.ndim > 1 or (found.ndim == 1 and len(found) != n):
        raise ValueError(f"target must be one class number or one a row: got shape {found.shape} for {n} rows")
    found = np.broadcast_to(found, n)
    if found.min() < 0 or found.max() >= K:
        raise ValueError(
            f"target must be among the model's outputs 0 to {K - 1}, got {found.min()} to {found.max()}"
            + "; numbers are class numbers, which count from 0, and labels are passed as text" * (K > 1)
        )
    return found.astype(np.int64)


def score(predicted, y, X, model) -> tuple[str, float]:
    """`("Accuracy", share)` of a classifier's outputs (n, K) on labels y, or `("R2", value)` of a regressor's (n, 1).

    Labels are found by value in the model's classes; nets and functions have class numbers. Raises ValueError for
    labels the model does not know, other lengths, and series that are indexed differently from X.
    """
    if isinstance(y, (pd.Series, pd.DataFrame)) and isinstance(X, (pd.Series, pd.DataFrame)):
        inputs.same_rows(X=X, y=y)
    y = inputs.vector(y, "y")
    inputs.same_rows(X=predicted, y=y)
    if predicted.shape[1] > 1 or classes(model) is not None:
        known = classes(model) or list(range(predicted.shape[1]))
        return "Accuracy", float((predicted.argmax(1) == inputs.codes(y, known, "y")).mean())
    from sklearn.metrics import r2_score

    text = next((value for value in y.tolist() if isinstance(value, (str, bytes))), None)
    if text is not None:
        raise ValueError(f"y holds the text {text!r}, and the model predicts values: pass numbers")
    y = numbers(y, "y")
    if not np.isfinite(y).all():
        raise ValueError("y has missing or infinite values: drop these rows")
    return "R2", float(r2_score(y, predicted[:, 0])) if len(y) > 1 else np.nan
