"""How good, how honest, how fair: metrics of predicted probabilities, with every choice of scale and bin written out.

y: (rows,) class numbers 0 .. K-1; p: (rows, K) probabilities that sum to 1. If p is a data frame whose columns are
named by classes, y holds these names, and their order does not matter. Confidence is the largest probability of a row,
and it is calibrated if rows with confidence c are right with frequency c.

| metric | definition | range |
|---|---|---|
| AUC | two classes: area under the ROC curve; more: mean over classes of one against the rest | 0.5 chance, 1 best |
| log-loss | mean of -ln p of the true class | nats |
| Brier | mean over rows of sum_k (p_k - [y = k])^2 | 0 to 2, for two classes as well |
| ECE | sum over bins of (rows in bin / rows) times the gap between accuracy and mean confidence | 0 to 1 |
| MCE | largest gap over bins with enough rows | 0 to 1 |

Scikit-learn's `brier_score_loss` halves the binary case and not the others, so averages over both would mix scales.
ECE depends on the bins: with `width` most rows fall into few of them; with `mass` all hold as many rows. A bin of
three rows has a large gap by chance, and MCE is made of such bins unless they are left out.

Fairness: the prediction is a decision, `positive` its benefit; each is a difference between groups, largest minus
smallest, 0 at best, as in fairlearn:

- SPD, statistical parity: share predicted positive.
- EOpD, equal opportunity: that share among rows that are positive (true positive rate).
- EOD, equalised odds: the larger of the gaps in true positive rate and in false positive rate; so never below EOpD.

A classifier that gives everyone one answer has 0 in all three; read them beside accuracy and that classifier.
"""

from itertools import combinations
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from compendium import inputs

BINS = 15
LEAST = 10  # rows in a bin that counts for MCE


def check(y, p) -> tuple[np.ndarray, np.ndarray]:
    """`(y, p)` as arrays: class numbers (rows,) and probabilities (rows, K), of the same rows.

    Names of classes, in a data frame p, become numbers in sorted order. Raises ValueError for labels that are no class
    numbers, such as text, fractions and missing ones, for a column of p too few, and for anything but probabilities.
    """
    classes = inputs.columns(p)
    if classes == list(range(len(classes or ()))):
        classes = None
    labels, given = inputs.vector(y, "y"), np.asarray(p, float)
    if given.ndim != 2 or len(labels) != len(given) or len(labels) == 0:
        both = "; of two classes, give both columns" if given.ndim == 1 else ""
        raise ValueError(f"expected as many rows of probabilities as labels, got {given.shape} for {len(labels)}{both}")
    inputs.same_rows(y=y, p=p)
    if not np.allclose(given.sum(1), 1, atol=1e-5) or (given < 0).any():
        raise ValueError("probabilities must be at least 0 and sum to 1 in every row")
    if classes is not None:
        if len(set(classes)) < len(classes):
            raise ValueError("p has a class more than once among its columns: give each class one column")
        order = sorted(range(len(classes)), key=lambda k: (isinstance(classes[k], str), classes[k]))
        return inputs.codes(labels, [classes[k] for k in order], "y"), given[:, order]
    return _class_numbers(labels, given.shape[1]), given


def _class_numbers(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels as integers. Raises ValueError unless each is a whole number from 0 to classes - 1, or a truth."""
    if labels.dtype.kind not in "iu":
        whole = [isinstance(v, Real) and not pd.isna(v) and v in range(classes) for v in labels.tolist()]
        if not all(whole):
            raise ValueError(
                f"labels must be class numbers from 0 to {classes - 1}, got {labels.tolist()[whole.index(False)]!r}: "
                "give names with p as a data frame whose columns are the classes"
            )
        labels = labels.astype(int)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be class numbers from 0 to {classes - 1}")
    return labels


def predicted(model, x, classes: int) -> np.ndarray:
    """(rows, classes) probabilities of a fitted classifier of class numbers; 0 for classes that it was not shown."""
    p = np.zeros((len(x), classes))
    p[:, model.classes_] = model.predict_proba(x)
    return p


def auc(y, p) -> float:
    """Area under the ROC curve; with more than two classes the mean of one against the rest, over those that y has."""
    y, p = check(y, p)
    if p.shape[1] == 2:
        return float(roc_auc_score(y, p[:, 1])) if len(np.unique(y)) == 2 else np.nan
    found = [roc_auc_score(y == k, p[:, k]) for k in np.unique(y) if len(np.unique(y)) > 1]
    return float(np.mean(found)) if found else np.nan


def log_loss(y, p) -> float:
    """Mean of -ln p(true class), nats; probabilities below 1e-15 count as 1e-15."""
    y, p = check(y, p)
    return float(-np.log(p[np.arange(len(y)), y].clip(1e-15)).mean())


def brier(y, p) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2."""
    y, p = check(y, p)
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


def reliability(y, p, *, bins: int = BINS, kind: str = "width") -> pd.DataFrame:
    """The reliability curve: one row a bin with rows in it: n, confidence, accuracy (means over its rows).

    kind: "width": bins (k/bins, (k+1)/bins] of confidence; "mass": as many rows in each, but rows of equal confidence
    stay together.
    """
    if not isinstance(bins, Integral) or bins < 1:
        raise ValueError(f"bins must be a whole number from 1, got {bins}")
    y, p = check(y, p)
    confidence, right = p.max(1), p.argmax(1) == y
    if kind == "width":
        number = np.ceil(confidence * bins).clip(1, bins).astype(int) - 1
    elif kind == "mass":
        number = np.searchsorted(np.sort(confidence), confidence) * bins // len(y)
    else:
        raise ValueError(f"unknown kind {kind!r}: choose width or mass")
    frame = pd.DataFrame({"bin": number, "confidence": confidence, "accuracy": right})
    groups = frame.groupby("bin")
    return groups.mean().assign(n=groups.size()).reset_index()[["bin", "n", "confidence", "accuracy"]]


def ece(y, p, *, bins: int = BINS, kind: str = "width") -> float:
    """Expected calibration error of the top class."""
    table = reliability(y, p, bins=bins, kind=kind)
    return float((table.n * (table.accuracy - table.confidence).abs()).sum() / table.n.sum())


def mce(y, p, *, bins: int = BINS, kind: str = "width", least: int = LEAST) -> float:
    """Maximum calibration error over bins of at least `least` rows; nan when there is none."""
    table = reliability(y, p, bins=bins, kind=kind).query("n >= @least")
    return float((table.accuracy - table.confidence).abs().max())


def scores(y, p) -> dict[str, float]:
    """Every metric of performance and calibration."""
    y, p = check(y, p)
    return {
        "accuracy": float((p.argmax(1) == y).mean()),
        "balanced accuracy": float(balanced_accuracy_score(y, p.argmax(1))),
        "auc": auc(y, p),
        "log-loss": log_loss(y, p),
        "brier": brier(y, p),
        "ece": ece(y, p),
        "ece, equal mass": ece(y, p, kind="mass"),
        "mce": mce(y, p),
    }


# Fairness --------------------------------------------------------------------------------------------------------

DIFFERENCES = ("SPD", "EOpD", "EOD")


def fairness(y, predicted, group, *, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """SPD, EOpD and EOD with 95 % bootstrap intervals over rows: one row a metric.

    y, predicted: (rows,) bool or 0 and 1, True is the benefit; group: (rows,) labels. `smallest` is the number of rows
    of the smallest group that a metric compares: for rates among positives, positives only. A metric is nan where a
    group lacks the rows to have a rate. Raises ValueError for fewer than two groups, for groups that are missing, for
    labels or predictions of any other kind, and for series of other rows.
    """
    from fairlearn import metrics as fair

    inputs.same_rows(y=y, predicted=predicted, group=group)
    y, predicted, group = inputs.binary(y, "y"), inputs.binary(predicted, "predicted"), _groups(group)
    if not len(y):
        raise ValueError("fairness needs rows: y is empty")
    labels, g = np.unique(group, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"fairness compares groups; there is one: {labels[0]}")
    # Resampling rows is drawing how many fall into each cell of group x truth x prediction.
    cells = np.bincount(4 * g + 2 * y + predicted, minlength=4 * len(labels))
    drawn = np.random.default_rng(seed).multinomial(len(y), cells / len(y), size=resamples)
    by_cell = differences(drawn.reshape(resamples, -1, 2, 2))
    counts = cells.reshape(-1, 2, 2)
    theirs = {
        "SPD": fair.demographic_parity_difference,
        "EOpD": fair.equal_opportunity_difference,
        "EOD": fair.equalized_odds_difference,
    }
    smallest = {"SPD": counts.sum((1, 2)).min(), "EOpD": counts[:, 1].sum(1).min(), "EOD": counts.sum(2).min()}
    rows = []
    for k, (name, function) in enumerate(theirs.items()):
        known = smallest[name] > 0
        value = float(function(y, predicted, sensitive_features=group)) if known else np.nan
        each = by_cell[:, k][np.isfinite(by_cell[:, k])]
        low, high = np.quantile(each, [0.025, 0.975]) if known and len(each) else (np.nan, np.nan)
        rows.append({"metric": name, "value": value, "low": low, "high": high, "smallest": int(smallest[name])})
    return pd.DataFrame(rows)


def _groups(group) -> np.ndarray:
    """(rows,) text, one for each group: equal values, such as 1 and 1.0, are one group, and spaces around do not count.

    Raises ValueError for missing groups, and for different ones that read alike, such as 1 and "1".
    """
    values = inputs.vector(group, "group")
    if pd.isna(values).any():
        raise ValueError("group has missing values: drop these rows, or name them as a group of their own")
    first = {}
    for value in values.tolist():
        first.setdefault(value.strip() if isinstance(value, str) else value, value)
    if len({str(value).strip() for value in first}) < len(first):
        raise ValueError("group has different values that read alike, such as 1 and '1': give groups of one type")
    if values.dtype.kind != "O" and values.dtype.kind not in "US":
        return values.astype(str)
    return np.array([str(first[v.strip() if isinstance(v, str) else v]).strip() for v in values.tolist()])


def differences(counts: np.ndarray) -> np.ndarray:
    """(..., 3) SPD, EOpD, EOD from (..., groups, truth, prediction) numbers of rows; nan where a rate has no rows.

    Raises ValueError unless truth and prediction are the last two axes, of two values each.
    """
    counts = np.asarray(counts)
    if counts.ndim < 3 or counts.shape[-2:] != (2, 2):
        raise ValueError(f"counts must be of shape (..., groups, 2, 2), got {counts.shape}")
    with np.errstate(invalid="ignore", divide="ignore"):
        selected = counts[..., 1].sum(-1) / counts.sum((-2, -1))
        rate = counts[..., 1] / counts.sum(-1)  # (..., groups, truth): false and true positive rate
    gap = lambda x: x.max(-1) - x.min(-1)
    opportunity = gap(rate[..., 1])
    return np.stack([gap(selected), opportunity, np.maximum(opportunity, gap(rate[..., 0]))], -1)


# Ranks -----------------------------------------------------------------------------------------------------------


class Ranks(NamedTuple):
    """Methods compared over data sets."""

    mean: pd.Series  # mean rank by method, 1 is best; ascending
    friedman: float  # p-value that all methods have the same ranks
    pairs: pd.DataFrame  # one row a pair: difference of mean scores, p (Wilcoxon signed-rank), p after Holm
    critical: float  # Nemenyi's critical difference of mean ranks at 5 %


def ranks(table: pd.DataFrame) -> Ranks:
    """Ranks of methods (columns) over data sets (rows) by a score where more is better.

    Pairs are tested by Wilcoxon's signed-rank test with Holm's correction, which, unlike Nemenyi's, does not depend
    on which other methods take part (Benavoli et al. 2016). Raises ValueError for scores that are missing or no
    numbers, fewer than 3 rows, and methods that come twice.
    """
    from statsmodels.stats.multitest import multipletests

    table = pd.DataFrame(table)
    if table.columns.has_duplicates:
        raise ValueError(f"method {table.columns[table.columns.duplicated()][0]!r} comes twice: one column a method")
    strange = [c for c in table if not pd.api.types.is_numeric_dtype(table[c]) and not table[c].isna().any()]
    if strange:
        raise ValueError(f"scores of {strange[0]!r} are no numbers: convert them with pandas.to_numeric")
    if table.isna().any(axis=None) or len(table) < 3 or table.shape[1] < 2:
        raise ValueError("ranks need a score of at least two methods on each of at least three data sets")
    if np.isinf(table.to_numpy(float)).any():
        raise ValueError("a score is infinite: differences of it are no number, so leave that data set out")
    mean = table.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    several = table.shape[1] > 2
    friedman = sps.friedmanchisquare(*table.to_numpy().T).pvalue if several else np.nan
    rows = []
    for a, b in combinations(mean.index, 2):
        difference = table[a] - table[b]
        p = sps.wilcoxon(difference).pvalue if difference.any() else 1.0
        rows.append({"better": a, "worse": b, "difference": difference.mean(), "p": p})
    pairs = pd.DataFrame(rows)
    pairs["p_holm"] = multipletests(pairs.p, method="holm")[1]
    return Ranks(mean, float(friedman), pairs, nemenyi(table.shape[1], len(table)))


def nemenyi(methods: int, sets: int, level: float = 0.05) -> float:
    """Critical difference of mean ranks (Demsar 2006): q sqrt(k (k + 1) / (6 N)), q from the studentised range."""
    q = sps.studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * sets)))


def cliques(found: Ranks, level: float = 0.05) -> list[tuple[str, str]]:
    """Longest runs of methods, in order of rank, with no significant pair among them: (best, worst) of each."""
    order = list(found.mean.index)
    place = {name: i for i, name in enumerate(order)}
    apart = {(place[r.better], place[r.worse]) for r in found.pairs.itertuples() if r.p_holm < level}
    runs = []
    for i in range(len(order)):
        j = i
        while j + 1 < len(order) and not any((a, j + 1) in apart for a in range(i, j + 1)):
            j += 1
        if j > i and (not runs or j > runs[-1][1]):
            runs.append((i, j))
    return [(order[i], order[j]) for i, j in runs]


def draw_ranks(found: Ranks, ax, level: float = 0.05) -> None:
    """Critical-difference diagram: mean ranks on a line, best to the left; bars join what cannot be told apart."""
    n = len(found.mean)
    for i, (name, rank) in enumerate(found.mean.items()):
        left = i < (n + 1) // 2
        height = -1 - (i if left else n - 1 - i)
        edge = found.mean.min() - 0.3 if left else found.mean.max() + 0.3
        ax.plot([rank, rank, edge], [0, height, height], color="0.3", lw=1)
        ax.text(edge, height, f" {name} ({rank:.2f}) ", ha="right" if left else "left", va="center", fontsize="small")
    for k, (best, worst) in enumerate(cliques(found, level)):
        ax.plot([found.mean[best] - 0.03, found.mean[worst] + 0.03], [-0.3 - 0.25 * k] * 2, color="C3", lw=3)
    ax.axhline(0, color="0.3", lw=1)
    ax.set(yticks=[], ylim=(-(n + 1) // 2 - 1.2, 0.4), xlabel="mean rank")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.xaxis.set_ticks_position("top")
    ax.xaxis.set_label_position("top")
