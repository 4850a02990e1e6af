"""Cut a model down to a circuit, and measure what is left of a behaviour.

A circuit is a set of edges, a bool mask (sources, destinations). Outside it, edges carry what they carry on the corrupt
prompt (or a mean, or nothing); inside, what the circuit's own run writes. `evaluate` runs that edge-level ablation.

- faithfulness = (m(circuit) - m(corrupt)) / (m(clean) - m(corrupt)): 1 when the circuit does what the model does.
- completeness: what the model without the circuit still does, the faithfulness of the complement; 0 is complete.
- `curve`: faithfulness at growing shares of edges; `area_cpr` its area (MIB's circuit performance ratio, higher is
  better) and `area_cmd` the area between it and 1 (circuit-model distance, lower is better). Trapezoids over the share
  of edges kept; that we read MIB's integration so is an inference, its code was not compared. Large circuits dominate
  those areas; `area_cmd_log` gives every factor of the share the same weight.
"""

import numpy as np
import torch
from torch import Tensor

from compendium.attribution.decoder import Decoder, Pairs, logit_difference, measure
from compendium.attribution.graph import Graph

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges, as in MIB


def prune(graph: Graph, mask: Tensor) -> Tensor:
    """Drop edges that cannot matter, until none is left: sources that nothing feeds, parts that nobody reads."""
    mask = mask.clone()
    owner = graph.owner.to(mask.device)
    while True:
        fed = torch.zeros(graph.n_sources, dtype=torch.bool, device=mask.device)
        fed[owner[:-1][mask[:, :-1].any(0)]] = True
        fed[0] = True
        read = mask.any(1)
        reader = torch.cat([read[owner[:-1]], torch.ones(1, dtype=torch.bool, device=mask.device)])
        kept = mask & fed[:, None] & reader
        if torch.equal(kept, mask):
            return mask
        mask = kept


def top_edges(graph: Graph, scores: Tensor, n: int) -> Tensor:
    """The n edges with the largest absolute scores, pruned (so slightly fewer): bool (sources, destinations)."""
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"n must lie between 0 and the number of edges, {graph.n_edges:,}; got {n:,}")
    ranked = scores.abs().masked_fill(~graph.possible.to(scores.device), -1).flatten()
    mask = torch.zeros_like(ranked, dtype=torch.bool)
    mask[ranked.topk(n).indices] = True
    return prune(graph, mask.view_as(scores))


def greedy_edges(graph: Graph, scores: Tensor, n: int) -> Tensor:
    """n edges grown from the logits: always the largest absolute score among edges into what is already reached."""
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"n must lie between 0 and the number of edges, {graph.n_edges:,}; got {n:,}")
    size = scores.abs().masked_fill(~graph.possible.to(scores.device), -1).cpu().numpy()
    inputs = {}
    for destination, source in enumerate(graph.owner.tolist()):
        inputs.setdefault(source, []).append(destination)
    mask = np.zeros(size.shape, bool)
    reached = np.zeros(graph.n_sources, bool)
    best = np.full(size.shape[1], -1.0)  # largest score into each open destination
    arg = np.zeros(size.shape[1], int)

    def open_inputs(destinations):
        for d in destinations:
            arg[d] = size[:, d].argmax()
            best[d] = size[arg[d], d]

    open_inputs([graph.logits])
    for _ in range(n):
        d = int(best.argmax())
        if best[d] < 0:
            break
        u = arg[d]
        mask[u, d] = True
        size[u, d] = -1
        open_inputs([d])
        if not reached[u]:
            reached[u] = True
            open_inputs(inputs.get(int(u), []))
    return prune(graph, torch.from_numpy(mask).to(scores.device))


def top_nodes(graph: Graph, scores: Tensor, n: int) -> Tensor:
    """All edges among the embedding, the logits and the n sources with the largest absolute node scores."""
    kept = torch.zeros(graph.n_sources, dtype=torch.bool, device=scores.device)
    kept[scores[1:].abs().topk(n).indices + 1] = True
    kept[0] = True
    owner = graph.owner.to(scores.device)
    reads = torch.cat([kept[owner[:-1]], torch.ones(1, dtype=torch.bool, device=scores.device)])
    return graph.possible.to(scores.device) & kept[:, None] & reads


def top_heads(graph: Graph, scores: Tensor, n: int) -> Tensor:
    """The n attention heads with the largest absolute node scores: (sources,) bool."""
    heads = torch.tensor([name.startswith("a") for name in graph.source_names], device=scores.device)
    if not 1 <= n <= int(heads.sum()):
        raise ValueError(f"n must lie between 1 and the number of heads, {int(heads.sum())}; got {n}")
    kept = torch.zeros_like(heads)
    kept[scores.abs().masked_fill(~heads, -1).topk(n).indices] = True
    return kept


@torch.no_grad()
def evaluate(
    decoder: Decoder,
    pairs: Pairs,
    mask: Tensor,
    metric=logit_difference,
    *,
    ablation: str = "corrupt",
    mean: Tensor | None = None,
) -> Tensor:
    """The metric of every pair with only the circuit's edges live: (n,).

    ablation: what other edges carry: "corrupt" (the corrupt prompt's value), "zero", or "mean" (`mean`, from
    `mean_writes`). Raises ValueError for a mask of the wrong shape or an unknown ablation.
    """
    graph = decoder.graph
    if mask.shape != (graph.n_sources, graph.n_destinations) or mask.dtype != torch.bool:
        raise ValueError(
            f"a circuit is a bool mask of shape ({graph.n_sources}, {graph.n_destinations}); got {mask.dtype} "
            f"{tuple(mask.shape)}"
        )
    if ablation not in ("corrupt", "zero", "mean") or (ablation == "mean") != (mean is not None):
        raise ValueError("ablation must be 'corrupt', 'zero', or 'mean' together with mean=mean_writes(...)")
    values = []
    for chunk in decoder.chunks(pairs, whole=ablation != "corrupt"):
        past, clean = [], chunk.clean
        if ablation == "corrupt":
            past, clean, corrupt = decoder.prefix(chunk)  # where the prompts agree, so do circuit and corrupt run
            base, _ = decoder.outputs(decoder.embed(corrupt, past), past)
        else:
            shape = (graph.n_sources, *clean.shape, decoder.d_model)
            base = (torch.zeros(1, device=decoder.model.device) if mean is None else mean[:, None, None]).expand(shape)
        final = _ablated(decoder, decoder.embed(clean, past), past, mask.to(decoder.model.dtype), base)
        values.append(measure(metric, decoder.logits(final), chunk))
    return torch.cat(values)


def _ablated(decoder: Decoder, embedding: Tensor, past: list, mask: Tensor, base: Tensor) -> Tensor:
    """Final stream of the circuit's run. Each reader gets the base stream plus its live edges' differences."""
    graph = decoder.graph
    n, t, d = embedding.shape
    difference = embedding.new_zeros(graph.n_sources, n, t, d)  # this run's writes minus the base's
    difference[0] = embedding - base[0]

    def read(sources: int, destinations: slice, stream: Tensor) -> Tensor:
        """(readers, n, t, d): what each destination reads."""
        live = mask[:sources, destinations].T @ difference[:sources].flatten(1)
        return live.view(-1, n, t, d) + stream

    stream = base[0].clone()
    for layer in range(graph.layers):
        first, mlp = graph.head(layer, 0), graph.mlp(layer)
        normed = decoder.normed(layer, read(first, graph.reads(layer, "attention"), stream))
        q, k, v = (
            torch.einsum("hntd,hed->nthe", part, decoder.weight(layer, kind)) + decoder.family.bias(layer, kind)
            for part, kind in zip(normed.split(graph.heads), "qkv", strict=True)
        )
        out = decoder.heads(layer, decoder.attend(layer, q, k, v, past))
        difference[first:mlp] = out - base[first:mlp]
        before, stream = stream, stream + base[first:mlp].sum(0) + decoder.constant(layer)
        sources = graph.before(layer, "mlp")
        (mlp_input,) = read(sources, graph.reads(layer, "mlp"), before if graph.parallel else stream)
        difference[mlp] = decoder.mlp(layer, mlp_input) - base[mlp]
        stream = stream + base[mlp]
    (final,) = read(graph.n_sources, slice(graph.logits, None), stream)
    return final


@torch.no_grad()
def mean_writes(decoder: Decoder, pairs: Pairs) -> Tensor:
    """Mean over pairs and positions of what every source writes on corrupt prompts: (sources, d)."""
    total = 0
    for chunk in decoder.chunks(pairs, whole=True):
        writes, _ = decoder.outputs(decoder.embed(chunk.corrupt))
        total = total + writes.sum((1, 2))
    return total / pairs.corrupt.numel()


@torch.no_grad()
def ends(decoder: Decoder, pairs: Pairs, metric=logit_difference) -> tuple[Tensor, Tensor]:
    """The metric of every pair on the whole model, on clean and on corrupt prompts: two (n,)."""
    clean, corrupt = [], []
    for chunk in decoder.chunks(pairs, whole=True):
        for tokens, found in ((chunk.clean, clean), (chunk.corrupt, corrupt)):
            found.append(measure(metric, decoder.logits(decoder.forward(decoder.embed(tokens))), chunk))
    return torch.cat(clean), torch.cat(corrupt)


def faithfulness(value: Tensor, clean: Tensor, corrupt: Tensor) -> float:
    """(mean circuit - mean corrupt) / (mean clean - mean corrupt) of per-pair metrics (n,)."""
    span = (clean.mean() - corrupt.mean()).item()
    if abs(span) < 1e-9:
        raise ValueError("clean and corrupt prompts score the same: there is nothing for a circuit to explain")
    return (value.mean() - corrupt.mean()).item() / span


def curve(
    decoder: Decoder, pairs: Pairs, scores: Tensor, metric=logit_difference, *, shares=SHARES, select=top_edges
) -> list[dict]:
    """Faithfulness of the circuits that keep growing shares of all edges: one dict per share."""
    graph = decoder.graph
    clean, corrupt = ends(decoder, pairs, metric)
    rows = []
    for share in shares:
        mask = select(graph, scores, round(share * graph.n_edges))
        reaches = mask[:, graph.logits].any()  # otherwise it is the corrupt run exactly
        found = evaluate(decoder, pairs, mask, metric) if reaches else corrupt
        rows.append({"share": share, "edges": int(mask.sum()), "faithfulness": faithfulness(found, clean, corrupt)})
    return rows


def _curve(rows: list[dict], first: bool) -> tuple[list[float], list[float]]:
    """Shares and faithfulness, from the first share on or from an empty circuit (faithfulness 0)."""
    x, y = [row["share"] for row in rows], [row["faithfulness"] for row in rows]
    return (x, y) if first else ([0.0, *x], [0.0, *y])


def area_cpr(rows: list[dict], *, as_mib: bool = False) -> float:
    """Area under the faithfulness curve over the share of edges, from an empty circuit (faithfulness 0) on.

    as_mib: from the first share on, as the MIB benchmark has it, which takes scores with their sign for it.
    """
    x, y = _curve(rows, as_mib)
    return float(np.trapezoid(y, x))


def area_cmd(rows: list[dict], *, as_mib: bool = False) -> float:
    """Area between the faithfulness curve and 1 over the share of edges; as_mib: from the first share on."""
    x, y = _curve(rows, as_mib)
    return float(np.trapezoid(np.abs(1 - np.array(y)), x))


def area_cmd_log(rows: list[dict]) -> float:
    """Mean distance of the faithfulness curve from 1 over the logarithm of the share: small circuits count as much."""
    x, y = np.log([row["share"] for row in rows]), np.array([row["faithfulness"] for row in rows])
    return float(np.trapezoid(np.abs(1 - y), x) / (x[-1] - x[0]))


def nodes(graph: Graph, mask: Tensor) -> Tensor:
    """(sources,) bool: heads and MLPs that take part in a circuit (the embedding is no part of the weights)."""
    kept = mask.any(1).clone()
    kept[0] = False
    return kept


def parameter_mask(decoder: Decoder, kept: Tensor, neurons: dict[int, Tensor] | None = None) -> dict[str, Tensor]:
    """Which weights belong to a set of nodes: bool masks by parameter name, shaped like the weights.

    kept: (sources,) bool. A head owns its rows of the query projection, its columns of the output projection, and the
    rows of keys and values that it shares with its group (counted once). An MLP owns its projections, or, where
    `neurons` gives a bool (d_mlp,) for its layer, those neurons' rows and columns. Raises ValueError for an empty set.
    """
    graph = decoder.graph
    if not kept[1:].any():
        raise ValueError("the circuit is empty: keep at least one head or MLP (a larger n, or a lower threshold)")
    names = {id(p): name for name, p in decoder.model.named_parameters()}
    masks = {}

    def mark(weight, rows=slice(None), columns=slice(None)):
        mask = masks.setdefault(names[id(weight)], torch.zeros_like(weight, dtype=torch.bool))
        mask[rows, columns] = True

    for layer in range(graph.layers):
        for head in range(graph.heads):
            if kept[graph.head(layer, head)]:
                for weight, rows, columns in decoder.family.head_weights(layer, head):
                    mark(weight, rows, columns)
        if kept[graph.mlp(layer)]:
            chosen = slice(None) if neurons is None or layer not in neurons else neurons[layer]
            for weight, rows, columns in decoder.family.mlp_weights(layer, chosen):
                mark(weight, rows, columns)
    return masks


def parameter_share(decoder: Decoder, masks: dict[str, Tensor]) -> float:
    """Share of all the model's parameters that the masks select."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(p.numel() for p in decoder.model.parameters())
