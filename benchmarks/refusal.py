"""What refusing costs at run time: greedy replies of an edited checkpoint beside steered ones, in one run.

    python benchmarks/refusal.py [--threads 2] [--prompts 32] [--tokens 16] [--repeats 3]

An update inside the weights costs nothing; a hook costs its addition; CAST also a second pass over every prompt.
"""

import argparse
import time
from contextlib import nullcontext

import numpy as np
import torch

from compendium import edits, models
from compendium.attribution.refusal import examples, measure, prompt_sets, rivals, steering

LAYER = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("threads", 2), ("prompts", 32), ("tokens", 16), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    models.set_threads(given.threads)
    model, tokenizer = models.load()
    model.requires_grad_(False)
    found = examples.examples(model, tokenizer, ["legal"], per_kind=8)
    vector = steering.behaviour(model, found.refuse, found.comply)
    wordings = [[measure.encode(tokenizer, x) for x in part] for part in prompt_sets.wordings("legal", "train")]
    when = steering.condition(model, wordings, [row.prompt for row in found.keep])
    name = f"model.layers.{LAYER}.self_attn.o_proj.weight"
    delta = {name: 1e-6 * torch.ones_like(dict(model.named_parameters())[name])}
    ways = {
        "untouched model": nullcontext,
        "edited weights": lambda: edits.applied(model, delta),
        "DiffMean, one layer": lambda: steering.steered(model, vector, [LAYER], 1.0),
        "CAST, one layer": lambda: steering.steered(model, vector, [LAYER], 1.0, when),
    }
    asked = [prompt for group in rivals.prompts(["legal"], 30).values() for prompt in group]
    asked = (asked * given.prompts)[: given.prompts]
    times = {way: [] for way in ways}
    for repeat in range(given.repeats + 1):
        for way, inside in ways.items():
            with inside():
                started = time.perf_counter()
                made = measure.reply(model, tokenizer, asked, tokens=given.tokens)
                seconds = time.perf_counter() - started
            if repeat:  # the first round warms up
                times[way].append(seconds / sum(map(len, made)))
    base = np.array(times["untouched model"])
    print(f"{given.prompts} prompts, {given.tokens} tokens each, {given.threads} threads, median of {given.repeats}")
    for way, seconds in times.items():
        speed, ratio = 1 / np.median(seconds), np.median(np.array(seconds) / base)
        print(f"{way:22} {speed:7.0f} tokens/s   {ratio:5.2f} x the time of the untouched model")


if __name__ == "__main__":
    main()
