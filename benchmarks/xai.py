"""Metrics of explanations: how fast, and whose definition is right where the right answer is known.

python benchmarks/xai.py [--rows 100] [--repeats 3] [--quantus folder]

1. Our metrics against the same metrics with one prediction at a time, on three models; the same values.
2. Our metrics against Quantus on one network and the same attributions, where it has a counterpart. Quantus is no
   dependency: `pip install --target FOLDER --no-deps quantus cachetools opencv-python-headless scikit-image lazy_loader
   imageio tifffile`, then `--quantus FOLDER`.
3. Definitions on a linear score with exact attributions: ours, Quantus', and those of xai_evals 0.0.12 rewritten here
   from a description of its code (attributions sorted by size and then used by position, the class of the masked
   input, k = 5, zeros). A metric is right if it puts exact above random above upside-down attributions.
"""

import argparse
import sys
import time
import warnings

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from compendium import models
from compendium.xai import explain, metrics, nets, synthetic

ASK = metrics.TRUTHFUL


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# 1. One at a time ------------------------------------------------------------------------------------------------


def one_at_a_time(predict, X, keep, target, baseline) -> np.ndarray:
    """`metrics.masked` for a fixed baseline, as most packages do it."""
    keep = np.broadcast_to(keep, (len(X), *keep.shape[1:]))
    found = np.empty(keep.shape[:2])
    for i, masks in enumerate(keep):
        for k, mask in enumerate(masks):
            found[i, k] = predict(np.where(mask, X[i], baseline[0, i])[None])[0, target[i]]
    return found


def against_loops(rows: int, repeats: int) -> None:
    table = synthetic.irrelevant(400 + rows, seed=0)
    X, x, y = table.x[400:], table.x[:400], table.y[:400]
    A, target, baseline = table.attribution[400:], 1, x.mean(0)
    made = {
        "network": nets.mlp(x, y, epochs=20),
        "logistic": LogisticRegression().fit(x, y),
        "forest": RandomForestClassifier(50, random_state=0).fit(x, y),
    }
    few, batched = slice(0, max(5, rows // 20)), metrics.masked  # the loop runs on a share of the rows
    print(f"1. all metrics that ask the model, {X.shape[1]} columns, {rows} rows; one prediction at a time takes")
    total = []
    for name, model in made.items():
        predict = explain.predictor(model)
        work = lambda part, p=predict: [metrics.METRICS[m](p, X[part], A[part], target, baseline) for m in ASK]
        ours = work(few)
        times = [seconds(lambda w=work: w(slice(None))) for _ in range(repeats)]
        metrics.masked = one_at_a_time
        try:
            slow = seconds(lambda w=work: w(few)) * rows / (few.stop)
            for a, b in zip(ours, work(slice(0, 2)), strict=True):
                np.testing.assert_allclose(a[:2], b, rtol=1e-3, atol=1e-5)
        finally:
            metrics.masked = batched
        total.append(slow / np.median(times))
        print(f"   {name:10} ours {np.median(times):7.3f} s   {total[-1]:6.0f} x as long")
    print(f"   median {np.median(total):.0f} x")


# 2. Quantus ------------------------------------------------------------------------------------------------------


def quantus_metrics(d: int, baseline: str | float = 0.0) -> dict:
    """Quantus' counterparts with its scaling of attributions off, and as many masks as ours.

    baseline: its default is "black", which is the smallest number of the batch, whatever column it comes from.
    """
    import quantus as q

    if not hasattr(np, "trapz"):  # Quantus 0.6.0 asks for a function that NumPy has renamed
        np.trapz = np.trapezoid  # noqa: NPY201
    plain = dict(normalise=False, abs=False, disable_warnings=True, display_progressbar=False)
    return {
        "faithfulness correlation": q.FaithfulnessCorrelation(
            subset_size=max(1, round(d / 5)), nr_runs=100, perturb_baseline=baseline, return_aggregate=False, **plain
        ),
        "deletion": q.PixelFlipping(features_in_step=1, perturb_baseline=baseline, return_auc_per_sample=True, **plain),
        "monotonicity": q.MonotonicityCorrelation(
            features_in_step=1, perturb_baseline=baseline, nr_samples=1, **plain | {"abs": True}
        ),
        "complexity": q.Complexity(**plain | {"abs": True}),
        "sparseness": q.Sparseness(**plain | {"abs": True}),
    }


def by_quantus(metric, net, X, A, target) -> np.ndarray:
    """Its inputs are pictures or series: rows become series of one channel."""
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric(
            model=nn.Sequential(nn.Flatten(), net).eval(),
            x_batch=X[:, None].astype(np.float32),
            y_batch=np.broadcast_to(target, len(X)).astype(int),
            a_batch=A[:, None].astype(np.float32),
            softmax=True,
            channel_first=True,
            device="cpu",
            batch_size=len(X),
        )
    return np.asarray(found, float)


def against_quantus(rows: int, repeats: int) -> None:
    table = synthetic.irrelevant(400 + rows, seed=0)
    net = nets.mlp(table.x[:400], table.y[:400], epochs=20)
    X, A, target, d = table.x[400:], table.attribution[400:], 1, table.x.shape[1]
    predict, ratios = explain.predictor(net), []
    print(f"2. Quantus, network, {rows} rows, {d} columns: the same attributions")
    for name, metric in quantus_metrics(d).items():
        ours = lambda m=name: metrics.METRICS[m](predict, X, A, target, np.zeros(d))
        theirs = lambda m=metric: by_quantus(m, net, X, A, target)
        a, b = ours(), theirs()
        fast, slow = (np.median([seconds(f) for _ in range(repeats)]) for f in (ours, theirs))
        ratios.append(slow / fast)
        print(
            f"   {name:26} ours {fast:7.4f} s, Quantus {slow:7.4f} s: {slow / fast:6.1f} x; "
            f"mean {np.nanmean(a):7.3f} and {np.nanmean(b):7.3f}, correlation over rows {np.corrcoef(a, b)[0, 1]:.2f}"
        )
    print(f"   median {np.median(ratios):.1f} x")


# 3. Definitions --------------------------------------------------------------------------------------------------


def as_published(predict, X, A, seed: int = 0) -> dict[str, float]:
    """xai_evals 0.0.12's definitions: one number a table; attributions come sorted, and are used by position."""
    rng, d = np.random.default_rng(seed), X.shape[1]
    by_size = np.take_along_axis(A, (-np.abs(A)).argsort(1), 1)
    f = lambda x: predict(x).max(1)  # of whatever class wins there
    drops = np.stack([f(X) - f(np.where(np.arange(d) == j, 0, X)) for j in range(d)], 1)
    noise = 0.01 * rng.normal(size=X.shape)
    top = np.arange(d) < 5
    return {
        "faithfulness correlation": np.corrcoef(by_size.ravel(), drops.ravel())[0, 1],
        "infidelity": ((by_size[:, 0] * noise[:, 0] - (f(X + noise) - f(X))) ** 2).mean(),
        "comprehensiveness": (f(X) - f(np.where(top, 0, X))).mean(),
        "sufficiency": (f(np.where(top, X, 0)) - f(X)).mean(),
        "monotonicity": (np.diff(by_size, axis=1) <= 0).all(1).mean(),
        "complexity": (A != 0).sum(1).mean(),
        "sparseness": (A == 0).mean(),
    }


def definitions(rows: int, with_quantus: bool) -> None:
    """On the linear table: the score is known, and the exact attribution of its log-odds with it."""
    table = synthetic.linear(rows, seed=1)
    X, d = table.x, table.x.shape[1]
    score = np.log(np.divide(*table.predict(np.eye(d)).T[::-1]))  # the weights
    net = nets.linear(np.stack([-score / 2, score / 2])).float()
    target = explain.predicted(net, X)
    exact = table.attribution * np.where(target, 1, -1)[:, None]
    rng = np.random.default_rng(0)
    size = np.sort(np.abs(exact), 1)
    backwards = np.take_along_axis(size[:, ::-1], np.abs(exact).argsort(1).argsort(1), 1)
    given = {"exact": exact, "random": rng.normal(size=exact.shape) * exact.std(), "upside down": -exact}
    sizes = given | {"upside down": backwards}  # for a metric of sizes alone
    predict = explain.predictor(net)
    theirs = {kind: quantus_metrics(d, kind) if with_quantus else {} for kind in (0.0, "black")}

    def ours(name):
        use = sizes if name == "monotonicity" else given
        return [np.nanmean(metrics.METRICS[name](predict, X, a, target, np.zeros(d))) for a in use.values()]

    def published(name):
        use = sizes if name == "monotonicity" else given
        return [as_published(predict, X, a).get(name, np.nan) for a in use.values()]

    def quantus(name, kind=0.0):
        use = sizes if name == "monotonicity" else given
        known = name in theirs[kind]
        return [
            np.nanmean(by_quantus(theirs[kind][name], net, X, a, target)) if known else np.nan for a in use.values()
        ]

    print(f"3. linear score, {rows} rows: exact > random > upside down? Scores of these three")
    better = {**metrics.BETTER}
    for name in (*ASK[:7], "complexity", "sparseness"):
        for label, function, sign in (
            ("ours", ours, better[name]),
            (
                "xai_evals",
                published,
                1 if name == "sufficiency" else better[name],
            ),  # their sufficiency has its sign turned
            ("Quantus", quantus, better[name]),
            ("Quantus, its default baseline", lambda n: quantus(n, "black"), better[name]),
        ):
            values = np.array(function(name))
            if np.isnan(values).all():
                continue
            right = (np.diff(values * sign) < -1e-9).all()
            verdict = "form, no truth" if name in ("complexity", "sparseness") else "right" if right else "WRONG"
            print(f"   {name:26} {label:30} {'  '.join(f'{v:8.3f}' for v in values)}   {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quantus", help="folder that has Quantus, if it is not installed")
    given = parser.parse_args()
    models.set_threads(1)
    if given.quantus:
        sys.path.append(given.quantus)
    try:
        import quantus  # noqa: F401

        found = True
    except ImportError as missing:
        found = False
        print(f"no Quantus ({missing}): parts that need it are left out; see --help for how to get it")
    against_loops(given.rows, given.repeats)
    if found:
        against_quantus(given.rows, given.repeats)
    definitions(300, found)


if __name__ == "__main__":
    main()
