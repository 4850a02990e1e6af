"""What the runs say: tables of stage 02-runs, read and brought to one row a domain, seed and method."""

from pathlib import Path

import pandas as pd

from compendium.paths import UNLEARNED, relative


def read(name: str, where: Path = UNLEARNED) -> pd.DataFrame:
    """One of the three tables over all domains and seeds, with columns domain and seed. Raises FileNotFoundError."""
    parts = []
    for folder in sorted(where.glob("[!.]*")):
        of = pd.read_csv(folder / "facts.csv").iloc[0]
        parts.append(pd.read_csv(folder / f"{name}.csv").assign(domain=of.domain, seed=of.seed))
    if not parts:
        raise FileNotFoundError(f"no {name}.csv under {relative(where)}: run `dvc repro 02-runs`")
    return pd.concat(parts, ignore_index=True)


def table(answers: pd.DataFrame, edited: pd.DataFrame) -> pd.DataFrame:
    """One row a domain, seed and method: what was measured of it, beside the untouched model of the same run.

    forget, near, far: shares of right answers; "near change", "far change", "retained change" (mean of the two): minus
    the untouched model's; "nf4 gap" and so on: forgotten facts that a format brings back (right answers in it minus in
    full precision); "perplexity ratio"; and the columns of `edited`, the table facts.csv.
    """
    key = ["domain", "seed", "method"]
    wide = answers.pivot_table("correct", key, ["kind", "weights"], sort=False)
    found = pd.DataFrame({kind: wide[kind, "float32"] for kind in ("forget", "near", "far")})
    untouched = found.xs("none", level="method")
    for kind in ("near", "far"):
        found[f"{kind} change"] = found[kind] - untouched[kind].reindex(found.index.droplevel("method")).to_numpy()
    found["retained change"] = (found["near change"] + found["far change"]) / 2
    for fmt in wide["forget"].columns.drop("float32"):
        found[f"{fmt} gap"] = wide["forget", fmt] - wide["forget", "float32"]
    found = found.reset_index().merge(edited, on=key)
    base = found[found.method == "none"].set_index(["domain", "seed"]).perplexity
    found["perplexity ratio"] = found.perplexity / base.reindex(pd.MultiIndex.from_frame(found[key[:2]])).to_numpy()
    return found


def by_fact(answers: pd.DataFrame, method: str, kinds=("near", "far")) -> pd.Series:
    """Change of right answers against the untouched model, averaged for each fact over wordings and seeds.

    What a bootstrap over facts resamples: wordings and seeds of one fact are no independent evidence.
    """
    part = answers[(answers.weights == "float32") & answers.kind.isin(kinds)]
    key = ["domain", "relation", "subject"]
    shares = (part[part.method == name].groupby(key).correct.mean() for name in (method, "none"))
    return next(shares) - next(shares)
