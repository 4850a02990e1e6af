"""NF4 geometry of a whole model beside the time bitsandbytes takes to quantise it, in one run.

python benchmarks/nf4.py [--threads 2] [--repeats 5]
"""

import argparse
import resource
import time

import numpy as np
from bitsandbytes.functional import quantize_4bit

from compendium import models, nf4


def seconds(work, layers) -> float:
    started = time.perf_counter()
    for layer in layers:
        work(layer.weight.detach())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    models.set_threads(given.threads)
    model, _ = models.load()
    layers = models.linear_layers(model).values()
    peers = {
        "bitsandbytes quantize_4bit": lambda w: quantize_4bit(
            w, blocksize=64, quant_type="nf4", compress_statistics=False
        ),
        "compendium codes": nf4.codes,
        "compendium geometry": nf4.geometry,
    }
    times = {name: [] for name in peers}
    for repeat in range(given.repeats + 1):
        for name, work in peers.items():  # in turn, so that a slow spell of the machine hits all
            elapsed = seconds(work, layers)
            if repeat:  # the first round warms up
                times[name].append(elapsed)
    base = np.array(times["bitsandbytes quantize_4bit"])
    count = sum(layer.weight.numel() for layer in layers)
    print(f"{count / 1e6:.0f} million weights, {given.threads} threads, median of {given.repeats}")
    for name, found in times.items():
        ratio = np.median(np.array(found) / base)
        print(f"{name:28} {np.median(found):6.2f} s   {ratio:5.2f} x bitsandbytes")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
