"""Auditors of real models: the unlearned models of section 02."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from compendium.paths import UNLEARNING
from compendium.unlearning import outcomes
from compendium.xai.audit.auditor import auc_interval, interval

# Evidence about a run, cumulative like `ladder`; + or -: which direction should mean that facts come back.
RUN_COLUMNS: dict[str, tuple[str, ...]] = {
    "answers": ("forget", "near change", "far change"),
    "probabilities": ("forget logprob change", "log perplexity ratio"),
    "probes": ("probe",),
    "attribution": ("CAD node cosine", "CAD edge cosine", "CAD node mass"),  # stands in for patching
    "before and after": ("edited", "log update", "log flips"),
}


RUN_SCORES = {
    "answers": ("forget", 1),
    "probabilities": ("forget logprob change", 1),
    "probes": ("probe", 1),
    "attribution": ("CAD node cosine", -1),
    "before and after": ("log update", -1),
}


def runs(where=UNLEARNING / "unlearned", *, forgot: float = 0.4) -> pd.DataFrame:
    """Unlearned language models of stage 02-unlearned that pass the behavioural test, one per row.

    Passed: at most the share `forgot` of the forgotten questions is still right (0.25 is chance). `relearned` (how much
    comes back of facts that are not taught) and the evidence are there only for runs that were looked inside; `nf4 gap`
    is there for all. Attribution (CAD) compares with the model before: it is no evidence about
    the edited model alone.
    """
    answers = outcomes.read("answers", where)
    found = outcomes.table(answers, outcomes.read("facts", where))
    key = ["domain", "seed", "method"]
    asked = answers[(answers.weights == "float32") & (answers.kind == "forget")]
    logprob = asked.groupby(key).logprob.mean()
    found["forget logprob change"] = [
        logprob[d, s, m] - logprob[d, s, "none"] for d, s, m in found[key].itertuples(index=False)
    ]
    for name, column in (("perplexity ratio", "perplexity ratio"), ("update", "update_mean"), ("flips", "flips")):
        found[f"log {name}"] = np.log(found[column])
    return found[(found.method != "none") & (found.forget <= forgot)].reset_index(drop=True)


def judge_runs(frame: pd.DataFrame, columns: Sequence[str], truth: str = "relearned", penalty: float = 10.0):
    """Predicted truth of each run, by a ridge regression fitted to other methods in other domains: a Series."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if frame.domain.nunique() < 2 or frame.method.nunique() < 3:
        raise ValueError("two domains and three methods needed: a run is judged from others in both respects")
    found = pd.Series(np.nan, index=frame.index)
    for (domain, method), part in frame.groupby(["domain", "method"]):
        fit = frame[(frame.domain != domain) & (frame.method != method)]
        model = make_pipeline(StandardScaler(), Ridge(penalty)).fit(fit[columns], fit[truth])
        found[part.index] = model.predict(part[columns])
    return found


def rank_interval(
    frame: pd.DataFrame, score: str, truth: str = "relearned", *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Spearman correlation within domains, averaged, and its 95 % interval by resampling methods (all their runs).

    nan when the score or the truth does not vary: then there is nothing to correlate.
    """
    methods = {name: part for name, part in frame.groupby("method")}
    names = list(methods)
    rng = np.random.default_rng(seed)

    def correlation(of):
        found = []
        for _, part in of.groupby("domain"):
            a, b = rankdata(part[score]), rankdata(part[truth])
            found.append(np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else np.nan)
        return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan

    drawn = [
        correlation(pd.concat([methods[names[i]] for i in rng.integers(len(names), size=len(names))]))
        for _ in range(resamples)
    ]
    return correlation(frame), *interval(np.array(drawn))


def climb_runs(frame: pd.DataFrame, *, truth: str = "relearned", back: float = 0.1, resamples: int = 1000):
    """The audit ladder of real runs: per rung the AUC of telling runs where facts came back, and rank correlation.

    back: a run's facts came back when `truth` is at least this. Intervals resample methods. A table.
    """
    rows, so_far = [], []
    for name, columns in RUN_COLUMNS.items():
        so_far = [*so_far, *columns]
        column, sign = RUN_SCORES[name]
        for auditor, score in (
            ("fixed score", sign * frame[column]),
            ("trained, unseen mechanism", judge_runs(frame, so_far, truth)),
        ):
            scored = frame.assign(score=score, back=frame[truth] >= back)
            value, low, high = auc_interval(scored, "score", "back", group="method", resamples=resamples)
            rho, rho_low, rho_high = rank_interval(scored, "score", truth, resamples=resamples)
            rows.append(
                {
                    "evidence": name,
                    "auditor": auditor,
                    "auc": value,
                    "low": low,
                    "high": high,
                    "rho": rho,
                    "rho low": rho_low,
                    "rho high": rho_high,
                    "runs": len(frame),
                    "came back": int(scored.back.sum()),
                }
            )
    return pd.DataFrame(rows)
