"""What AI-governance instruments ask to be shown, and what whoever checks may see: the audit gap, coded and tested.

The idea is a position paper's (arXiv 2605.15164): instruments demand claims, such as the absence of hidden aims, that
the evidence they name cannot carry. Its inventory of 21 instruments is not public in full; `data/instruments.csv` is
our reconstruction, by the rules in `data/coding_book.md`. Access to a model is coded on a scale of five levels:

    0 documents   1 black-box queries   2 grey box, logits   3 activations and weights   4 training history

| measure | definition |
|---|---|
| gap | level that the strongest claim requires minus the level granted to anyone outside the developer |
| reach | highest level that a named kind of evidence reaches (`EVIDENCE`); 0 if none is named |
| fragile | the instrument asks for an absence claim and its evidence reaches level 1 at most |

How to read it: instruments were chosen, not sampled, and required levels follow from claim types by a rule, so a mean
gap alone says little. What counts is what survives: another coder, other monotone scales, other rules from claims to
levels, the loss of any one row (`sensitivity`). Intervals resample instruments; they cover neither choice nor coding.

    table = governance.measures(governance.load())
    governance.agreement(table, governance.second(table))     # Cohen's kappa per field
    governance.gradient(table)                                # gap by legal force, verifier, sanction, date
"""

from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from scipy import stats as sps

from compendium import inputs, stats
from compendium.paths import DATA, relative

LEVELS = ("documents", "black box", "grey box", "activations and weights", "training history")


CLAIMS = ("process", "propensity", "capability", "absence")  # weakest first


VERIFIERS = ("none", "self", "appointed", "independent", "regulator")


FORCES = ("binding", "standard", "voluntary")


EVIDENCE = {  # kind of evidence: highest level of access that it reaches
    "documentation": 0,
    "self-assessment": 0,
    "incident reports": 0,
    "third-party audit": 0,
    "conformity assessment": 0,
    "behavioural evaluation": 1,
    "red-teaming": 1,
    "external evaluation": 1,
    "grey-box testing": 2,
    "interpretability": 3,
    "training records": 4,
}


BEHAVIOURAL = 1  # the level of a tester who sees inputs and outputs


CODED = ["claim_types", "evidence_named", "access_required", "access_granted", "verifier"]


COLUMNS = [
    "id",
    "title",
    "body",
    "jurisdiction",
    "date",
    "legal_force",
    "claim_types",
    "claim_excerpt",
    "evidence_named",
    "access_required",
    "access_granted",
    "verifier",
    "sanction",
    "named_by_paper",
    "source",
    "checked",
]


_CHOICES = {"verifier": VERIFIERS, "legal_force": FORCES, "sanction": ("yes", "no"), "named_by_paper": ("yes", "no")}


LISTS = {"claim_types": CLAIMS, "evidence_named": tuple(EVIDENCE)}


ACCESS = ("access_required", "access_granted")


def _read(path, columns) -> pd.DataFrame:
    """A table of codes: texts, with lists as tuples and levels as integers. Raises ValueError at the first bad code."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    name = relative(path)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{name} lacks column {missing[0]!r}: it needs {', '.join(columns)}")
    if table.empty:
        raise ValueError(f"{name} holds no instruments")
    if (twice := table.id[table.id.duplicated()]).size:
        raise ValueError(f"{name}: instrument {twice.iloc[0]!r} is there twice")

    def check(column, value, of, choices):
        if value not in choices:
            raise ValueError(f"{name}, {of}, {column}: {value!r} is none of {', '.join(map(str, choices))}")
        return value

    for column in table.columns.intersection(columns):
        cells = zip(table.id, table[column].str.strip(), strict=True)
        if column in LISTS:
            found = []
            for of, cell in cells:
                given = cell.split(";") if cell or column == "claim_types" else []  # a text may name no evidence
                codes = {check(column, code.strip(), of, LISTS[column]) for code in given}
                found.append(tuple(code for code in LISTS[column] if code in codes))  # in the order of the list
            table[column] = found
        elif column in ACCESS:
            table[column] = [int(check(column, cell, of, tuple("01234"))) for of, cell in cells]
        elif column in _CHOICES:
            table[column] = [check(column, cell, of, _CHOICES[column]) for of, cell in cells]
        elif (blank := [of for of, cell in cells if not cell]) and column != "reason":
            raise ValueError(f"{name}, {blank[0]}: {column} is empty")
    return table


def load(path=DATA / "instruments.csv") -> pd.DataFrame:
    """The instruments, in order of date: lists as tuples, levels as integers, `date` as a timestamp.

    Raises ValueError for missing columns, unknown codes, empty cells, ids that come twice, dates that are none.
    """
    table = _read(path, COLUMNS)
    date = pd.to_datetime(table.date, format="%Y-%m-%d", errors="coerce")
    if date.isna().any():
        row = table[date.isna()].iloc[0]
        raise ValueError(f"{relative(path)}, {row.id}: date {row.date!r} is not year-month-day")
    return table.assign(date=date).sort_values(["date", "id"], ignore_index=True)


def second(table: pd.DataFrame, path=DATA / "second_coding.csv") -> pd.DataFrame:
    """A second coding of the same instruments, in the order of `table`. Raises ValueError if they are not the same."""
    other = _read(path, ["id", *CODED])
    if set(other.id) != set(table.id):
        odd = sorted(set(other.id) ^ set(table.id))[0]
        raise ValueError(f"{relative(path)} and the instruments differ in {odd!r}: both need the same ids")
    return other.set_index("id").loc[table.id].reset_index()


def swap(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The table with the other coder's codes, measured."""
    codes = other.set_index("id").loc[table.id, CODED].reset_index(drop=True)
    return measures(table.reset_index(drop=True).assign(**{column: codes[column] for column in CODED}))


def measures(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `gap`, `absence`, `reach`, `fragile`, `year` (with fraction) and `outside`: who checks is not
    the developer."""
    date = table.date.dt
    absence = np.array(["absence" in claims for claims in table.claim_types])
    reach = np.array([max((EVIDENCE[kind] for kind in kinds), default=0) for kinds in table.evidence_named])
    return table.assign(
        gap=table.access_required - table.access_granted,
        absence=absence,
        reach=reach,
        fragile=absence & (reach <= BEHAVIOURAL),
        year=date.year + (date.dayofyear - 1) / 365.25,
        outside=~table.verifier.isin(["none", "self"]),
    )


# What the table says


def difference(values, group, *, seed: int = 0, resamples: int = 4999) -> dict:
    """Mean of `values` where `group` is true minus where it is not: difference, bootstrap interval (within groups),
    permutation p (two-sided). nan without two values in each group. Raises ValueError for missing values, groups that
    are not True/False, and series of other items."""
    inputs.same_rows(values=values, group=group)
    values, group = _known(values, "values"), inputs.binary(group, "group")
    a, b = values[group], values[~group]
    if min(len(a), len(b)) < 2:
        return {"estimate": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
    gap = lambda x, y, axis=-1: x.mean(axis=axis) - y.mean(axis=axis)
    rng = np.random.default_rng(seed)
    drawn = [part[rng.integers(len(part), size=(resamples, len(part)))] for part in (a, b)]
    low, high = np.percentile(gap(*drawn), [2.5, 97.5])
    test = sps.permutation_test((a, b), gap, n_resamples=resamples, vectorized=True, rng=rng)
    return {"estimate": float(gap(a, b)), "low": float(low), "high": float(high), "p": float(test.pvalue)}


def _known(values, name: str) -> np.ndarray:
    values = inputs.numbers(values, name)
    if np.isnan(values).any():
        raise ValueError(f"{name} has missing values: drop these items")
    return values


def trend(x, y, *, seed: int = 0, resamples: int = 4999) -> dict:
    """Spearman's rank correlation: estimate, bootstrap interval over items, permutation p (two-sided)."""
    if np.shape(x) != np.shape(y) or len(x) < 3:
        raise ValueError(f"a trend needs at least three pairs: shapes {np.shape(x)} and {np.shape(y)}")
    inputs.same_rows(x=x, y=y)
    x, y = _known(x, "x"), _known(y, "y")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"estimate": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
    rng = np.random.default_rng(seed)
    centred = lambda v: (r := sps.rankdata(v, axis=-1)) - r.mean(-1, keepdims=True)

    def rho(p, q):  # (..., n)
        p, q = centred(p), centred(q)
        with np.errstate(invalid="ignore"):
            return (p * q).sum(-1) / np.sqrt((p**2).sum(-1) * (q**2).sum(-1))

    estimate = float(rho(x, y))
    shuffled = rho(x, rng.permuted(np.tile(y, (resamples, 1)), axis=1))
    rows = rng.integers(len(x), size=(resamples, len(x)))
    low, high = np.nanpercentile(rho(x[rows], y[rows]), [2.5, 97.5])
    p = (1 + (np.abs(shuffled) >= abs(estimate) - 1e-12).sum()) / (1 + resamples)
    return {"estimate": estimate, "low": float(low), "high": float(high), "p": float(p)}


_SPLITS = {
    "voluntary or standard minus binding": lambda t: t.legal_force != "binding",
    "developer or nobody checks minus outsider": lambda t: ~t.outside,
    "no sanction minus sanction": lambda t: t.sanction == "no",
    "absence claim minus none": lambda t: t.absence,
}


def gradient(table: pd.DataFrame, *, seed: int = 0, resamples: int = 4999) -> pd.DataFrame:
    """Where gaps are wide: one row a comparison, estimate (levels, or rho for dates), low, high, p, n in the group.

    The first three are what a gradient of incentives predicts to be positive, in our reading. A difference of gaps is
    one of required levels (column `required`) minus one of granted levels (`granted`): which of the two makes it.
    """
    rows = []
    for name, split in _SPLITS.items():
        group = split(table)
        found = difference(table.gap, group, seed=seed, resamples=resamples)
        parts = {
            k: table[f"access_{k}"][group].mean() - table[f"access_{k}"][~group].mean() for k in ("required", "granted")
        }
        rows.append({"comparison": name, **found, **parts, "n": int(group.sum())})
    found = trend(table.year, table.gap, seed=seed, resamples=resamples)
    rows.append({"comparison": "date (Spearman)", **found, "n": len(table)})
    found = trend(table.access_required, table.access_granted, seed=seed, resamples=resamples)
    rows.append({"comparison": "required with granted (Spearman)", **found, "n": len(table)})
    return pd.DataFrame(rows)


# What survives


def recodings(levels: int = len(LEVELS)) -> list[tuple[int, ...]]:
    """Every order-preserving map of the scale into itself, but those that merge all levels into one: 121 for five."""
    maps = combinations_with_replacement(range(levels), levels)
    return [m for m in maps if m[0] < m[-1]]


def rules(levels: int = len(LEVELS)) -> list[dict[str, int]]:
    """Every rule from claim types to required levels under which a stronger claim never needs less: 70 for five."""
    return [dict(zip(CLAIMS, m, strict=True)) for m in combinations_with_replacement(range(levels), len(CLAIMS))]


def recode(table: pd.DataFrame, scale) -> pd.DataFrame:
    """The table with all levels sent through `scale`, a tuple of new values of levels 0 .. 4; fragile goes along."""
    scale = np.asarray(scale)
    if scale.shape != (len(LEVELS),) or (np.diff(scale) < 0).any():
        raise ValueError(f"a recoding gives each of {len(LEVELS)} levels a value, in ascending order: {scale.tolist()}")
    required, granted = scale[table.access_required], scale[table.access_granted]
    fragile = table.absence & (scale[table.reach] <= scale[BEHAVIOURAL])
    return table.assign(access_required=required, access_granted=granted, gap=required - granted, fragile=fragile)


def require(table: pd.DataFrame, rule: dict[str, int]) -> pd.DataFrame:
    """The table with required levels by a rule from claim types instead of as coded; the strongest claim counts."""
    if set(rule) != set(CLAIMS):
        raise ValueError(f"a rule gives a level to each of {', '.join(CLAIMS)}")
    required = np.array([max(rule[claim] for claim in claims) for claims in table.claim_types])
    return table.assign(access_required=required, gap=required - table.access_granted)


def summary(table: pd.DataFrame, *, seed: int = 0, resamples: int = 2000) -> dict:
    """Headline numbers of a measured table: mean gap with interval, shares, and the three gradients."""
    low, high = stats.bootstrap_interval(table.gap, seed=seed, resamples=resamples)
    absent = table[table.absence]
    means = table.groupby(table.legal_force == "binding").gap.mean(), table.groupby(table.outside).gap.mean()
    apart = [m.get(False, np.nan) - m.get(True, np.nan) for m in means]
    moving = np.ptp(table.gap) > 0
    return {
        "gap": float(table.gap.mean()),
        "low": low,
        "high": high,
        "open": float((table.gap > 0).mean()),
        "fragile": float(absent.fragile.mean()) if len(absent) else np.nan,
        "voluntary minus binding": float(apart[0]),
        "inside minus outside": float(apart[1]),
        "date": float(sps.spearmanr(table.year, table.gap).statistic) if moving else np.nan,
    }


def sensitivity(table: pd.DataFrame, other: pd.DataFrame | None = None, *, seed: int = 0) -> pd.DataFrame:
    """`summary` of the table and of every variant: kind, variant, the numbers.

    Kinds: as coded; second coder (if given); one row dropped; scale recoded; required levels by another rule.
    """
    variants = [("as coded", "", table)]
    if other is not None:
        variants.append(("second coder", "", swap(table, other)))
    variants += [("one row dropped", row.id, table[table.id != row.id]) for row in table.itertuples()]
    variants += [("scale recoded", "".join(map(str, m)), recode(table, m)) for m in recodings()]
    variants += [("claims to levels", "".join(map(str, m.values())), require(table, m)) for m in rules()]
    return pd.DataFrame(
        [{"kind": kind, "variant": of, **summary(t, seed=seed, resamples=500)} for kind, of, t in variants]
    )


CONCLUSIONS = {  # of a row of `sensitivity`
    "mean gap above 0": lambda t: t.low > 0,
    "absence claims mostly fragile": lambda t: t.fragile > 0.5,
    "wider where voluntary": lambda t: t["voluntary minus binding"] > 0,
    "wider where nobody outside checks": lambda t: t["inside minus outside"] > 0,
    "wider in later instruments": lambda t: t.date > 0,
}


def survival(variants: pd.DataFrame) -> pd.DataFrame:
    """Share of variants of each kind under which each conclusion is drawn: conclusion, kind, share, n."""
    rows = []
    for name, drawn in CONCLUSIONS.items():
        for kind, part in variants.groupby("kind", sort=False):
            rows.append({"conclusion": name, "kind": kind, "share": float(drawn(part).mean()), "n": len(part)})
    return pd.DataFrame(rows)
