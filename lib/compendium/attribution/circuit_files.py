"""Circuits as files: the JSON that EAP-IG's authors and the MIB benchmark exchange.

    {"cfg": {"n_layers": 30, "n_heads": 9, "parallel_attn_mlp": false, "d_model": 576},
     "nodes": {"input": {"in_graph": true}, "a0.h0": ..., "m0": ..., "logits": ...},
     "edges": {"input->a0.h0<q>": {"score": 0.5, "in_graph": true}, ...}}

Names of nodes and edges are those of `Graph`. Files that others wrote may leave out scores, or edges: those score 0 and
are not in the circuit.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compendium import files
from compendium.attribution.graph import Graph


class Circuit(NamedTuple):
    """A graph, scores (sources, destinations) of its edges, and a mask of the same shape: the edges in the circuit."""

    graph: Graph
    scores: Tensor
    mask: Tensor


def write(path, graph: Graph, scores: Tensor, mask: Tensor, *, d_model: int) -> None:
    """Write a circuit. Raises ValueError for scores or a mask of another shape."""
    shape = (graph.n_sources, graph.n_destinations)
    if tuple(scores.shape) != shape or tuple(mask.shape) != shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and mask {tuple(mask.shape)} must be of the graph's shape {shape}"
        )
    used = mask.any(1)
    nodes = {name: {"in_graph": bool(used[u]) or u == 0} for u, name in enumerate(graph.source_names)}
    edges = {
        f"{graph.source_names[u]}->{graph.destination_names[d]}": {
            "score": float(scores[u, d]),
            "in_graph": bool(mask[u, d]),
        }
        for u, d in graph.possible.nonzero().tolist()
    }
    shown = {"n_layers": graph.layers, "n_heads": graph.heads, "parallel_attn_mlp": graph.parallel, "d_model": d_model}
    text = json.dumps({"cfg": shown, "nodes": nodes | {"logits": {"in_graph": True}}, "edges": edges})
    files.write(Path(path), text)


def read(path) -> Circuit:
    """The circuit in a file. Raises ValueError for one that is none, or that names edges its graph does not have."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        cfg, edges = found["cfg"], found["edges"]
        graph = Graph(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg.get("parallel_attn_mlp", False)))
    except FileNotFoundError:
        raise ValueError(f"no circuit {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no circuit: cfg with n_layers and n_heads, and edges, are needed ({error})"
        ) from None
    sources = {name: u for u, name in enumerate(graph.source_names)}
    destinations = {name: d for d, name in enumerate(graph.destination_names)}
    scores = torch.zeros(graph.n_sources, graph.n_destinations)
    mask = torch.zeros(graph.n_sources, graph.n_destinations, dtype=torch.bool)
    for name, edge in edges.items():
        source, _, destination = name.partition("->")
        u, d = sources.get(source), destinations.get(destination)
        if u is None or d is None or not graph.possible[u, d]:
            raise ValueError(
                f"{path} has the edge {name!r}, which a model of {graph.layers} layers with {graph.heads} heads has not"
            )
        scores[u, d] = float(edge.get("score") or 0.0)
        mask[u, d] = bool(edge.get("in_graph", False))
    return Circuit(graph, scores, mask)
