"""MANSU end to end, piece by piece, beside one dense objective with as many steps, in one run.

python benchmarks/mansu.py [--threads 2] [--steps 30]
"""

import argparse
import resource
import time

import pandas as pd

from compendium.unlearning import evaluation, methods
from compendium.unlearning.known import KNOWN

SETTINGS = dict(
    batch=4, retain_batch=12, learning_rate=6e-3, circuit=0.5, share=0.008, damping=0.1, reach=0.5, budget=None
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("threads", 2), ("steps", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    table = pd.read_csv(KNOWN, dtype=str)
    subject = evaluation.load("country_capital", "Europe", 0, threads=given.threads, known=table)
    settings = SETTINGS | {"steps": given.steps}
    pieces = {
        "circuit (EAP-IG)": lambda: subject.scores,
        "forget gradient": lambda: subject.slope,
        f"Fisher information, {subject.fisher_rows} facts": lambda: subject.fisher,
        f"MANSU, {given.steps} steps, floor": lambda: methods.unlearn("MANSU", subject, settings),
    }
    print(f"{len(subject.domain.forget)} facts to forget, {given.threads} threads")
    total = 0.0
    for name, work in pieces.items():
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        total += seconds
        print(f"{name:32} {seconds:7.1f} s")
    print(f"{'all of it':32} {total:7.1f} s")
    started = time.perf_counter()
    methods.unlearn("NPO", subject, settings | {"learning_rate": 6e-5})
    seconds = time.perf_counter() - started
    print(
        f"{f'NPO, {given.steps} steps, all weights':32} {seconds:7.1f} s   ({total / seconds:.2f} x as long for MANSU)"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
