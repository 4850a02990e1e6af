"""Speed of the tabular section: tables drawn, a pretraining step, prediction beside boosting, adaptation.

python benchmarks/tabular.py [--threads 1] [--repeats 3]
"""

import argparse
import time

import numpy as np
from sklearn.datasets import make_classification

from compendium import models
from compendium.tabular import baselines, finetune, pretrain, prior
from compendium.tabular.pfn import Network, PFNClassifier, Shape


def seconds(work, repeats: int) -> float:
    """Median wall-clock seconds of a call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    models.set_threads(given.threads)
    rng, network = np.random.default_rng(0), Network().eval()
    x, y = make_classification(1500, 20, n_informative=8, random_state=0)
    run = pretrain.Run(shape=Shape(), rate=1e-3, seed=0)
    classifier = PFNClassifier(network, members=4).fit(x[:500], y[:500])
    boosting = baselines.boosting()
    strategies = {name: finetune.STRATEGIES[name] for name in ("meta", "sft", "lora", "sft, 8 rows")}
    work = {
        "prior: 64 tables of 256 rows": lambda: prior.sample(rng, tables=64, rows=256),
        "the same, encoded": lambda: pretrain.batch(rng, tables=64, rows=256, context=128),
        "a pretraining step of 2,048 rows": lambda: run.advance(seed=0, tokens=2048, longest=768, rate=1e-3, warm_up=1),
        "predict 1,000 rows, 500 in context, 20 columns, 4 members": lambda: classifier.predict_proba(x[500:]),
        "boosting: fit 500 rows and predict 1,000": lambda: boosting.fit(x[:500], y[:500]).predict_proba(x[500:]),
        **{
            f"adapt to 500 rows: {name}": lambda s=s: finetune.adapt(network, x[:500], y[:500], np.zeros(20, bool), s)
            for name, s in strategies.items()
        },
    }
    print(f"{given.threads} threads, median of {given.repeats}")
    for name, call in work.items():
        print(f"{name:60} {seconds(call, given.repeats):7.3f} s")


if __name__ == "__main__":
    main()
