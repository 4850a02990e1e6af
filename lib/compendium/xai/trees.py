"""Shapley values along trees (interventional, by shap), exact whatever the thresholds are.

shap compares in single precision, so a value may land on the wrong side of a threshold that is near it; sums then
miss the prediction, on regression forests by 2 of 300. Only the order of a column's values and thresholds decides where
a row goes. So thresholds become their ranks plus a half and values the number of thresholds below them, both compared
exactly, under the rule of each model: forests, single trees and GradientBoosting read X in single precision and compare
it with thresholds in double precision; HistGradientBoosting compares in double precision. All send x <= threshold to
the left.
"""

import numpy as np

MOST_NODES = 2**15 - 1  # of a tree: shap numbers them in 16 bits
IDENTITY = ("squared_error", "absolute_error", "quantile", "huber")  # losses whose raw score is the prediction


def is_boosted(model) -> bool:
    from sklearn import ensemble

    return _is_histogram(model) or isinstance(
        model, (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
    )


def is_forest(model) -> bool:
    from sklearn import ensemble, tree

    return isinstance(
        model,
        (
            ensemble.RandomForestClassifier,
            ensemble.RandomForestRegressor,
            ensemble.ExtraTreesClassifier,
            ensemble.ExtraTreesRegressor,
            tree.DecisionTreeClassifier,
            tree.DecisionTreeRegressor,
        ),
    )


def _is_histogram(model) -> bool:
    from sklearn import ensemble

    return isinstance(model, (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor))


def able(model, output: str) -> bool:
    """Whether `shapley` can explain this output: probabilities of forests (stretched raw scores of boosted trees of two
    classes), raw scores of boosted trees, predictions of regressors; not splits of categories into sets."""
    if is_forest(model):
        fits = (output == "probability" or not hasattr(model, "classes_")) and model.n_outputs_ == 1
    elif not is_boosted(model):
        return False
    elif hasattr(model, "classes_"):
        fits = model.loss == "log_loss" and (len(model.classes_) == 2 or output == "logit")
    else:
        fits = model.loss in IDENTITY
    if not _is_histogram(model):
        known = getattr(model, "init", None) is None or isinstance(model.init, str)  # else not the same in all rows
        return fits and known and max(tree.node_count for tree, _ in _sklearn_trees(model)) <= MOST_NODES
    nodes = [predictor.nodes for step in model._predictors for predictor in step]
    return fits and not any(n["is_categorical"].any() or len(n) > MOST_NODES for n in nodes)


def shapley(model, X: np.ndarray, rows: np.ndarray, *, probability: bool) -> np.ndarray:
    """(n, d) or (n, d, K) Shapley values of X (n, d) with the background rows (m, d).

    Of what trees add up to: probabilities (n, K) of forests, values, raw scores of boosted trees (of class 1 if there
    are two), or with probability=True these stretched to sum to differences in the probability of class 1.
    """
    import shap

    trees = _histogram_trees(model) if _is_histogram(model) else [_parsed(*of) for of in _sklearn_trees(model)]
    single = (lambda x: x) if _is_histogram(model) else (lambda x: x.astype(np.float32).astype(float))
    X, rows = single(X), single(rows)
    of_feature = np.concatenate([tree["features"] for tree in trees])
    values = np.concatenate([tree["thresholds"] for tree in trees])
    sorted_ = [np.unique(values[of_feature == j]) for j in range(X.shape[1])]
    for tree in trees:
        inner = np.flatnonzero(tree["features"] >= 0)
        place = [sorted_[tree["features"][i]].searchsorted(tree["thresholds"][i]) for i in inner]
        tree["thresholds"] = np.zeros(len(tree["features"]))
        tree["thresholds"][inner] = np.add(place, 0.5)
        if not probability:  # shap adds in single precision: small numbers, and a constant explains nothing
            tree["values"] = tree["values"] - tree["values"].mean(0)
    ranked = lambda x: np.stack(
        [t.searchsorted(column).astype(float) for t, column in zip(sorted_, x.T, strict=True)], 1
    )
    made = {
        "trees": trees,
        "input_dtype": np.float64,
        "objective": "binary_crossentropy" if probability else None,
        "tree_output": "log_odds" if probability else "raw_value",
        "base_offset": _start(model, rows) if probability else 0.0,
    }
    explainer = shap.TreeExplainer(
        made, ranked(rows), feature_perturbation="interventional", model_output="probability" if probability else "raw"
    )
    return np.asarray(explainer.shap_values(ranked(X), check_additivity=False))


def _sklearn_trees(model) -> list[tuple]:
    """(tree, how its values count: a factor for every column of output (K,), or None for all columns of its own)."""
    if not hasattr(model, "estimators_"):
        return [(model.tree_, 1.0)]
    if not is_boosted(model):
        return [(one.tree_, 1 / len(model.estimators_)) for one in model.estimators_]
    columns = np.eye(model.estimators_.shape[1])
    return [(one.tree_, model.learning_rate * columns[k]) for step in model.estimators_ for k, one in enumerate(step)]


def _parsed(tree, factor) -> dict:
    return {
        "children_left": tree.children_left,
        "children_right": tree.children_right,
        "children_default": tree.children_right,
        "features": tree.feature,
        "thresholds": tree.threshold,
        "values": tree.value[:, 0, :] * factor,
        "node_sample_weight": tree.weighted_n_node_samples.astype(float),
    }


def _histogram_trees(model) -> list[dict]:
    found, columns = [], np.eye(len(model._predictors[0]))
    for step in model._predictors:
        for k, predictor in enumerate(step):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            to = lambda side: np.where(leaf, -1, nodes[side].astype(int))  # noqa: B023 - used in this turn
            found.append(
                {
                    "children_left": to("left"),
                    "children_right": to("right"),
                    "children_default": to("right"),
                    "features": np.where(leaf, -2, nodes["feature_idx"].astype(int)),
                    "thresholds": nodes["num_threshold"].astype(float),
                    "values": nodes["value"][:, None] * columns[k],
                    "node_sample_weight": nodes["count"].astype(float),
                }
            )
    return found


def _start(model, rows) -> float:
    """The raw score, of two classes, to which the trees add."""
    if _is_histogram(model):
        return float(np.ravel(model._baseline_prediction)[0])
    added = model.learning_rate * sum(step[0].predict(rows[:1])[0] for step in model.estimators_)
    frame = rows[:1]
    if hasattr(model, "feature_names_in_"):
        import pandas as pd

        frame = pd.DataFrame(frame, columns=model.feature_names_in_)
    return float(model.decision_function(frame)[0] - added)
