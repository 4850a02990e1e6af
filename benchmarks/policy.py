"""What our additions cost, as ratios of plain TRL steps timed by turns in one run.

python benchmarks/policy.py [--start data/policies/start/policy] [--threads 1] [--repeats 5] [--batch 64]

1. A step of `PolicyTrainer` with each divergence against TRL's own `GRPOTrainer` with its KL; with counterfactual
   credit; a mirror map's share.
2. Counterfactual drops of a batch in packed passes against one span at a time, the same drops.
3. Runs side by side, one process each, against one after the other.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from trl import GRPOTrainer

from compendium import models
from compendium.policy_opt import config, credit, launching, policy, regions, runs, trainer, word_problems


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def steps(start: str, batch: int, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of one step (sampling, rewards, loss, backward, update) of each trainer, by turns."""
    base = dict(model=start, method="dapo", batch=batch, steps=1000, learning_rate=1e-5)
    kinds = {
        "k3": dict(divergence="k3", coefficient=0.1),
        "prob_l2": dict(divergence="prob_l2", coefficient=0.1),
        "mirror": dict(divergence="mirror", coefficient=0.1),
        "none": {},
        "k3, counterfactual": dict(divergence="k3", coefficient=0.1, credit="counterfactual"),
        "k3, dynamic sampling": dict(divergence="k3", coefficient=0.1, dynamic_sampling=5),
    }
    made = {
        name: trainer.build(config.make(base | kind), folder / name.replace(", ", "-")) for name, kind in kinds.items()
    }
    k3 = made["k3"]
    made["TRL, its KL"] = GRPOTrainer(
        trainer.load(config.make(base))[0],
        k3.reward_funcs,
        k3.args,
        train_dataset=k3.train_dataset,
        processing_class=k3.processing_class,
    )
    for each in made.values():
        each.create_optimizer_and_scheduler(1000)
        each.model.train()
        each.current_gradient_accumulation_steps = 1
    rows = iter(k3.get_train_dataloader())

    def step(each, inputs) -> None:
        each._buffered_inputs = None  # generate anew
        loss = each.compute_loss(each.model, each._prepare_inputs(inputs))
        loss.backward()
        each.optimizer.step()
        each.optimizer.zero_grad()

    times = {name: [] for name in made}
    for repeat in tqdm(range(repeats + 1), desc="steps", disable=None):
        inputs = next(rows)
        for name, each in made.items():
            torch.manual_seed(repeat)  # the same completions, nearly: policies move alike at this rate
            elapsed = seconds(lambda: step(each, list(inputs)))  # noqa: B023
            if repeat:  # the first round warms up
                times[name].append(elapsed)
    return times


def drops(start: str, count: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds for the drops of `count` completions: packed, and with one forward pass a span."""
    model, tokenizer = policy.load(start)
    problems = word_problems.problems(count, "validation")
    asked = [problem.question for problem in problems]
    completions = policy.generate(model, tokenizer, asked)
    prompts = tokenizer(asked)["input_ids"]
    parsed = [regions.regions(tokenizer, ids) for ids in completions]

    @torch.no_grad()
    def one(prompt, completion, region, hidden) -> float:
        """Log-probability of the answer with one span hidden from attention."""
        ids, n = torch.tensor([[*prompt, *completion]]), len(prompt)
        seen = torch.ones_like(ids)
        if hidden:
            seen[0, n + hidden.start : n + hidden.end] = 0
        positions = torch.arange(ids.shape[1])[None]
        logp = model(input_ids=ids, attention_mask=seen, position_ids=positions).logits.log_softmax(-1)
        return sum(logp[0, n + t - 1, completion[t]].item() for t in range(*region.answer))

    def singly() -> list[list[float]]:
        found = []
        for prompt, completion, region in zip(prompts, completions, parsed, strict=True):
            whole = one(prompt, completion, region, None) if region.spans else 0.0
            found.append([whole - one(prompt, completion, region, span) for span in region.spans])
        return found

    packed = lambda: credit.drops(model, prompts, completions, parsed)
    for ours, theirs in zip(packed(), singly(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    turns = [(seconds(packed), seconds(singly)) for _ in range(repeats)]
    return [a for a, _ in turns], [b for _, b in turns]


def side_by_side(start: str, folder: Path) -> tuple[float, float]:
    """Seconds for two runs one after the other, and both at once."""
    settings = config.make(dict(model=start, steps=10, evaluated=64))
    launching.alone(settings, folder / "warm")  # the server has imported TRL after this
    pair = lambda name: [(settings.but(seed=seed), folder / f"{name}{seed}") for seed in (1, 2)]
    return seconds(lambda: launching.launch(pair("after"))), seconds(
        lambda: launching.launch(pair("beside"), processes=2)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", default="data/policies/start/policy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    runs.quiet()
    models.set_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        one, two = side_by_side(given.start, Path(scratch))
        times = steps(given.start, given.batch, Path(scratch), given.repeats)
    base = np.array(times["TRL, its KL"])
    print(f"one step of {given.batch} completions, {given.threads} threads, median of {given.repeats}")
    for name, found in times.items():
        print(f"{name:24} {np.median(found):6.2f} s   {np.median(np.array(found) / base):5.2f} x TRL")
    packed, singly = drops(given.start, given.batch, given.repeats)
    ratio = np.median(np.array(singly) / np.array(packed))
    print(f"drops of {given.batch} completions: packed {np.median(packed):.2f} s, one span at a time {ratio:.1f} x")
    print(f"two runs: one after the other {one:.1f} s, side by side {two:.1f} s")


if __name__ == "__main__":
    main()
