"""What a foundation model must beat: classifiers trained on the table itself, in their usual settings.

Each is a scikit-learn estimator for data frames with text column names, as `suite.load` gives them: numeric columns,
columns of type category, missing values. Other columns are read as `columns` has it, and frames to predict as those of
`fit`, by name, whatever the types of their columns have become. CatBoost is an optional extra.
"""

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from compendium import inputs
from compendium.tabular.columns import Columns, distinct, framed, is_numeric, spelt
from compendium.tabular.suite import MissingExtra

_numeric = make_column_selector(dtype_include="number")
_nominal = make_column_selector(dtype_exclude="number")


class Alike(TransformerMixin, BaseEstimator):
    """First step of a pipeline: hands on frames as they were in `fit`, whatever the types of their columns are now.

    Columns are taken by name, in any order; a missing or additional one raises ValueError, as does what `Columns`
    refuses. Numeric and category columns are handed on untouched; others become one of these, and at prediction so do
    all that come with another type. Arrays pass.
    """

    def fit(self, X, y=None):
        X = framed(X)
        if y is not None:
            inputs.same_rows(X=X, y=y)
        self.dtypes_ = None
        if isinstance(X, pd.DataFrame):
            columns = [X[name] for name in X.columns]
            self.dtypes_ = dict(X.dtypes)
            self.columns_ = Columns().fit(columns, list(X.columns), np.zeros(len(columns), bool))
            self.values_ = {}  # of each nominal column, the value in `fit` by number of its level
            for j, levels in self.columns_.levels.items():
                kept = isinstance(columns[j].dtype, pd.CategoricalDtype)
                self.values_[j] = {levels.find(v): v for v in (distinct(columns[j])[1] if kept else levels.names)}
        return self

    def transform(self, X):
        check_is_fitted(self, "dtypes_")
        X = framed(X)
        if self.dtypes_ is None or not isinstance(X, pd.DataFrame):
            return X
        names = list(self.dtypes_)
        if list(X.columns) != names and set(X.columns) == set(names):
            X = X[names]
        inputs.same_columns(X, names, "the model was fitted on")
        read = self.columns_.transform([X[name] for name in names])
        kept = lambda dtype: isinstance(dtype, pd.CategoricalDtype) or (is_numeric(dtype) and not is_bool_dtype(dtype))
        same = [X[name].dtype == dtype and kept(dtype) for name, dtype in self.dtypes_.items()]
        if all(same):
            return X
        made = {name: X[name] if same[j] else self._as_fitted(X[name], read, j) for j, name in enumerate(names)}
        return pd.DataFrame(made, index=X.index)

    def _as_fitted(self, column: pd.Series, read: np.ndarray, j: int):
        if j not in self.values_:
            return read[:, j]
        place, values = distinct(column)
        # A level that is not known stays so: what to do with it is the model's business.
        found = [self.values_[j].get(self.columns_.levels[j].find(v), spelt(v)) for v in values]
        made = [found[k] if k >= 0 else None for k in place]
        # Without a value, a category would be one of numbers.
        return pd.Categorical(made, None if found else list(self.values_[j].values()))


def constant() -> DummyClassifier:
    """The class shares of the training rows, for every row: what any model must beat."""
    return DummyClassifier(strategy="prior")


def logistic():
    """Logistic regression (C = 1) on standardised and one-hot columns."""
    table = make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), _numeric),
        (OneHotEncoder(handle_unknown="ignore"), _nominal),
    )
    return make_pipeline(Alike(), table, LogisticRegression(max_iter=1000))


def forest(seed: int = 0):
    """Random forest of 300 trees on one-hot columns."""
    table = make_column_transformer(
        (SimpleImputer(strategy="median"), _numeric), (OneHotEncoder(handle_unknown="ignore"), _nominal)
    )
    return make_pipeline(Alike(), table, RandomForestClassifier(300, random_state=seed))


def boosting(seed: int = 0):
    """HistGradientBoosting in its default settings; it takes columns of type category as nominal."""
    return make_pipeline(Alike(), HistGradientBoostingClassifier(random_state=seed))


class CatBoost(ClassifierMixin, BaseEstimator):
    """CatBoost with 500 trees, one thread. Raises MissingExtra where it is not installed.

    Takes data frames. Raises ValueError for labels that are missing or numbers on a scale.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed

    def _text(self, X: pd.DataFrame) -> pd.DataFrame:
        return X.assign(**{name: X[name].astype(str).fillna("nan") for name in self.nominal_})

    def fit(self, X, y):
        try:
            from catboost import CatBoostClassifier
        except ModuleNotFoundError:
            raise MissingExtra("CatBoost is not installed: pip install catboost==1.2.10") from None
        self.alike_ = Alike().fit(X, y)
        X, y = self.alike_.transform(X), column_or_1d(y, warn=True)
        if pd.isna(y).any():
            raise ValueError("Input y contains NaN: drop the rows without a label")
        check_classification_targets(y)
        self.classes_, y = np.unique(y, return_inverse=True)
        self.nominal_ = _nominal(X)
        # Combining 60 columns takes 40 s on one table, and changes AUC by a ten-thousandth.
        combined = 1 if len(self.nominal_) > 30 else 4
        self.model_ = CatBoostClassifier(
            500,
            random_seed=self.seed,
            verbose=False,
            thread_count=1,
            allow_writing_files=False,
            cat_features=self.nominal_,
            max_ctr_complexity=combined,
        )
        self.model_.fit(self._text(X), y)
        return self

    def predict_proba(self, X) -> np.ndarray:
        return self.model_.predict_proba(self._text(self.alike_.transform(X)))

    def predict(self, X) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(1)]


BASELINES = {
    "constant": lambda seed: constant(),
    "logistic": lambda seed: logistic(),
    "forest": forest,
    "boosting": boosting,
    "catboost": CatBoost,
}
