"""Stage 01-circuits-units, for notebook 02_circuits: attribution methods compared on behaviours and samples of pairs.

python -m compendium.attribution circuits notebooks/01_attribution/circuits.yaml
"""

from pathlib import Path

import pandas as pd
import torch
from scipy.stats import spearmanr

from compendium import formats, models, settings, units
from compendium.attribution import circuits, contrast_pairs, scores
from compendium.attribution.decoder import Decoder
from compendium.paths import ATTRIBUTION, DATA

OUT = ATTRIBUTION / "circuits"
INPUTS = (DATA / "facts.csv",)
KEPT = 0.01  # share of all edges that a circuit of EAP-IG keeps where its size does not vary

METHODS = {
    "EAP-IG": scores.eap_ig,
    "EAP": scores.eap,
    "information flow": scores.information_flow,
    "magnitude": scores.magnitude,
    "random": scores.random,
}


def sample(decoder: Decoder, tokenizer, task: str, split: str, seed: int, n: int):
    """n pairs of a behaviour that the model gets right."""
    drawn = contrast_pairs.pairs(task, tokenizer, split=split, n=4 * n, seed=seed)
    return contrast_pairs.screen(decoder, drawn)[:n]


def overlap(a: torch.Tensor, b: torch.Tensor, k: int) -> float:
    """Jaccard overlap of the k edges with the largest absolute scores."""
    tops = [set(x.abs().flatten().topk(k).indices.tolist()) for x in (a, b)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def one(
    *,
    task: str,
    seed: int,
    n_pairs: int,
    steps: int,
    steps_tried: list[int],
    shares: list[float],
    model_name: str = "embedded",
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: float | None = None,
    threads: int = 1,
) -> dict[str, pd.DataFrame]:
    """Scores of one behaviour and sample of pairs by every method, and what they are worth.

    Scores come from train pairs, faithfulness from held-out pairs. Tables: `ranks` (node scores against exact patching:
    with sign, NaN for methods that give none, and by size), `curves` (faithfulness by share of edges), `areas`,
    `by_steps`, `variants` (the top 1 % of edges under other ablations, chosen greedily, and left out), `lasting`
    (overlap between halves of the pairs and with the NF4 model, faithfulness there), `nodes` (EAP-IG score of every
    source) and `edges` (the top 1 % by EAP-IG: numbers of source and destination, score).
    """
    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, dtype=dtype, device=device)
    model.requires_grad_(False)
    decoder = Decoder(model, memory)
    graph = decoder.graph
    pairs, held_out = (sample(decoder, tokenizer, task, split, seed, n_pairs) for split in contrast_pairs.SPLITS)
    key = {"task": task, "seed": seed}
    options = {"EAP-IG": {"steps": steps}, "random": {"seed": seed}}
    found = {name: method(decoder, pairs, **options.get(name, {})) for name, method in METHODS.items()}
    exact = scores.patching(decoder, pairs)

    def agreement(edges) -> dict[str, float]:
        ours, truth = scores.node_scores(edges)[1:].cpu(), exact[1:].cpu()
        signed = float(spearmanr(truth, ours).statistic) if (ours < 0).any() else float("nan")
        return {"spearman": signed, "spearman of sizes": float(spearmanr(truth.abs(), ours.abs()).statistic)}

    curves, areas = [], []
    for name, edges in found.items():
        rows = circuits.curve(decoder, held_out, edges, shares=shares)
        rows.append({"share": 1.0, "edges": graph.n_edges, "faithfulness": 1.0})  # all edges are the model, as tested
        area = {"CPR": circuits.area_cpr(rows), "CMD": circuits.area_cmd(rows), "CMD log": circuits.area_cmd_log(rows)}
        areas.append(key | {"method": name} | area)
        curves += [key | {"method": name} | row for row in rows]

    ours, top = found["EAP-IG"], round(KEPT * graph.n_edges)
    half = len(pairs) // 2
    halves = [scores.eap_ig(decoder, part, steps=steps) for part in (pairs[:half], pairs[half:])]
    mask = circuits.top_edges(graph, ours, top)
    ends = circuits.ends(decoder, held_out)

    def faithful(circuit=mask, **ablation) -> float:
        return circuits.faithfulness(circuits.evaluate(decoder, held_out, circuit, **ablation), *ends)

    variants = {
        "top edges, rest corrupt": faithful(),
        "greedy edges, rest corrupt": faithful(circuits.greedy_edges(graph, ours, top)),
        "top edges, rest mean": faithful(ablation="mean", mean=circuits.mean_writes(decoder, pairs)),
        "top edges, rest zero": faithful(ablation="zero"),
        "all but the top edges": faithful(graph.possible & ~mask),
    }
    lasting = key | {"overlap of halves": overlap(*halves, top), "faithfulness": variants["top edges, rest corrupt"]}
    with formats.quantised(model, "nf4"):
        stored = scores.eap_ig(decoder, pairs, steps=steps)
        ends = circuits.ends(decoder, held_out)
        lasting |= {"overlap with NF4": overlap(ours, stored, top), "faithfulness in NF4": faithful()}
    largest = ours.abs().flatten().topk(top).indices.cpu()
    source, destination = (places.numpy() for places in torch.unravel_index(largest, ours.shape))
    kept = {"source": source, "destination": destination, "score": ours.flatten().cpu()[largest].numpy()}
    made = {
        "ranks": [key | {"method": name} | agreement(edges) for name, edges in found.items()],
        "curves": curves,
        "areas": areas,
        "by_steps": [key | {"steps": n} | agreement(scores.eap_ig(decoder, pairs, steps=n)) for n in steps_tried],
        "variants": [key | {"circuit": name, "faithfulness": value} for name, value in variants.items()],
        "lasting": [lasting],
        "nodes": key | {"node": graph.source_names, "score": scores.node_scores(ours).cpu().numpy()},
        "edges": key | kept,
    }
    return {name: pd.DataFrame(rows) for name, rows in made.items()}


def planned(
    *,
    behaviours: list[str],
    n_pairs: int,
    seeds: list[int],
    steps: int,
    steps_tried: list[int],
    shares: list[float],
    model_name: str = "embedded",
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    memory: float | None = None,
) -> list[dict]:
    """The arguments of `one` for every behaviour and seed. Raises ValueError for a behaviour that is unknown."""
    if strange := set(behaviours) - set(contrast_pairs.TASKS):
        raise ValueError(f"unknown behaviour {min(strange)!r}: choose among {', '.join(contrast_pairs.TASKS)}")
    same = {"n_pairs": n_pairs, "steps": steps, "steps_tried": steps_tried, "shares": shares}
    same |= {"model_name": model_name, "revision": revision, "device": device, "dtype": dtype, "memory": memory}
    return [{"task": task, "seed": seed, **same} for task in behaviours for seed in seeds]


def sweep(given: dict, *, out: Path | None = None) -> units.Sweep:
    """All units of settings as `planned` takes them; out: `OUT` unless given. Raises ValueError as `planned` does."""
    settings.check(given, planned, where="the settings of the circuits")
    return units.Sweep(one, planned(**given), OUT if out is None else Path(out), "attribution circuits", INPUTS)


def tables(**given) -> dict[str, pd.DataFrame]:
    """The tables of a few units made here and now; given: as `planned` takes them."""
    return units.run(units.Sweep(one, planned(**given), None, "attribution circuits"))


def edge_scores(edges: pd.DataFrame, shape: tuple[int, int]) -> torch.Tensor:
    """(sources, destinations) scores of one behaviour and seed from its rows of table `edges`; other edges have 0."""
    found = torch.zeros(shape)
    found[edges.source.to_numpy(), edges.destination.to_numpy()] = torch.tensor(edges.score.tolist())
    return found
