"""What a credit scorer or a clinic requires of an explanation, and how to test each requirement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from compendium.xai.metrics import faithfulness


class Setting(NamedTuple):
    """What a requirement is tested on: a method on the rows of one model."""

    explain: Callable  # (X, seed) -> (n, d) attributions to the adverse class; the seed draws the background as well
    X: np.ndarray
    near: np.ndarray  # X with a small error of measurement
    exact: np.ndarray  # (n, d)
    used: np.ndarray  # (d,) bool: columns that the model uses
    changeable: np.ndarray  # (d,) bool: columns that the person can change


def _reasons(A, most: int = 4) -> np.ndarray:
    """(n, d) bool: up to `most` columns with the largest attributions above 0."""
    A = np.asarray(A, float)
    place = (-A).argsort(1, kind="stable").argsort(1)
    return (place < most) & (np.abs(A).max(1, keepdims=True) * 1e-9 < A)


def _overlap(a, b) -> float:
    """Mean over rows of the share of reasons that both name, of all that either names."""
    either = (a | b).sum(1)
    return float(np.where(either > 0, (a & b).sum(1) / np.maximum(either, 1), 1.0).mean())


def _order(a, b) -> float:
    """Mean over rows of Spearman's correlation of sizes; a row without variation counts as 0."""
    return float(
        np.nan_to_num(faithfulness.correlation(rankdata(np.abs(a), axis=1), rankdata(np.abs(b), axis=1))).mean()
    )


def reasons_after_error(case: Setting) -> float:
    return _overlap(_reasons(case.explain(case.X, 0)), _reasons(case.explain(case.near, 0)))


def reasons_repeated(case: Setting) -> float:
    return _overlap(_reasons(case.explain(case.X, 0)), _reasons(case.explain(case.X, 1)))


def reasons_used(case: Setting) -> float:
    return float((~(_reasons(case.explain(case.X, 0)) & ~case.used).any(1)).mean())


def reasons_true(case: Setting) -> float:
    named = _reasons(case.explain(case.X, 0))
    return float(((case.exact > 0) & named).sum() / max(1, named.sum()))


def reasons_changeable(case: Setting) -> float:
    return float((_reasons(case.explain(case.X, 0)) & case.changeable).any(1).mean())


def strongest_found(case: Setting) -> float:
    place = (-np.abs(case.explain(case.X, 0))).argsort(1, kind="stable").argsort(1)
    return float((np.take_along_axis(place, np.abs(case.exact).argmax(1)[:, None], 1) < 3).mean())


def direction_right(case: Setting) -> float:
    A = case.explain(case.X, 0)
    top = np.abs(case.exact).argsort(1)[:, -3:]
    return float((np.take_along_axis(np.sign(A), top, 1) == np.take_along_axis(np.sign(case.exact), top, 1)).mean())


def order_after_error(case: Setting) -> float:
    return _order(case.explain(case.X, 0), case.explain(case.near, 0))


def order_repeated(case: Setting) -> float:
    return _order(case.explain(case.X, 0), case.explain(case.X, 1))


class Requirement(NamedTuple):
    text: str
    measure: Callable[[Setting], float]  # 0 to 1, more is better
    least: float


CREDIT = {
    "steady": Requirement(
        "the reasons stay when numbers change by a twentieth of their spread", reasons_after_error, 0.8
    ),
    "repeatable": Requirement("the reasons stay with another seed and reference sample", reasons_repeated, 0.8),
    "no false ground": Requirement("no reason is a column the model does not use", reasons_used, 0.95),
    "true reasons": Requirement("what is named as a reason does raise the risk", reasons_true, 0.95),
    "open to change": Requirement(
        "one of the four reasons is something the applicant can change", reasons_changeable, 0.95
    ),
}


HEALTH = {
    "strongest found": Requirement("the column that matters most is among the top three", strongest_found, 0.95),
    "right direction": Requirement("the three strongest columns have the right sign", direction_right, 0.95),
    "steady": Requirement("the order stays under an error of a twentieth of the spread", order_after_error, 0.9),
    "repeatable": Requirement("the order stays with another seed and reference sample", order_repeated, 0.9),
}


@dataclass(frozen=True)
class Domain:
    """A table, what may not be used (the model is kept from it), what a person can change, and what is required."""

    table: str  # of `tabular.suite`
    adverse: str  # the label that is bad news
    requirements: dict[str, Requirement]
    names: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    changeable: tuple[str, ...] = ()


DOMAINS = {
    "credit": Domain(
        "german", "2", CREDIT,
        names=("checking account", "duration", "history", "purpose", "amount", "savings", "employment",
               "instalment rate", "sex and status", "guarantors", "residence", "property", "age", "other plans",
               "housing", "credits", "job", "dependants", "telephone", "foreign worker"),
        unused=("sex and status", "age", "foreign worker", "dependants"),
        changeable=("checking account", "duration", "purpose", "amount", "savings", "instalment rate", "guarantors",
                    "other plans", "credits"),
    ),
    "heart": Domain("heart", "2", HEALTH),
    "breast cancer": Domain("breast_cancer", "0", HEALTH),
}  # fmt: skip
