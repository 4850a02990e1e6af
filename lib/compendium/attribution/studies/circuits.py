"""Compare attribution methods on one behaviour: the body of a sweep, safe to call in worker processes."""

import torch
from scipy.stats import spearmanr

from compendium import formats, models
from compendium.attribution import circuits, contrast_pairs, scores
from compendium.attribution.decoder import Decoder

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


def study(
    task: str,
    seed: int,
    *,
    n_pairs: int,
    steps: int,
    steps_tried,
    shares,
    model_name: str = "embedded",
    revision=None,
    device: str = "cpu",
    threads: int = 1,
) -> dict:
    """Scores of one behaviour and sample of pairs by every method, and what they are worth.

    Scores come from train pairs, faithfulness from held-out pairs. Returns lists of rows, `ranks` (node scores against
    exact patching: with sign, NaN for methods that give none, and by size), `curves` (faithfulness by share of edges,
    with areas), `by_steps`, `variants` (the top 1 % of edges under other ablations, chosen greedily, and left out),
    `lasting` (overlap between halves of the pairs and with the NF4 model, faithfulness there), and `scores`: exact node
    scores and EAP-IG edges.
    """
    models.set_threads(threads)
    model, tokenizer = models.load(model_name, revision=revision, device=device)
    model.requires_grad_(False)
    decoder = Decoder(model)
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

    curves = []
    for name, edges in found.items():
        rows = circuits.curve(decoder, held_out, edges, shares=shares)
        rows.append({"share": 1.0, "edges": graph.n_edges, "faithfulness": 1.0})  # all edges are the model, as tested
        areas = {"CPR": circuits.area_cpr(rows), "CMD": circuits.area_cmd(rows), "CMD log": circuits.area_cmd_log(rows)}
        curves += [key | {"method": name} | row | areas for row in rows]

    ours, top = found["EAP-IG"], round(0.01 * graph.n_edges)
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
    return {
        "ranks": [key | {"method": name} | agreement(edges) for name, edges in found.items()],
        "curves": curves,
        "by_steps": [key | {"steps": n} | agreement(scores.eap_ig(decoder, pairs, steps=n)) for n in steps_tried],
        "variants": [key | {"circuit": name, "faithfulness": value} for name, value in variants.items()],
        "lasting": [lasting],
        "scores": {"exact": exact.cpu(), "EAP-IG": ours.cpu()},
    }
