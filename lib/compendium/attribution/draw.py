"""Pictures of circuits that a person can read."""

import numpy as np
from matplotlib.lines import Line2D
from torch import Tensor

from compendium.attribution.graph import Graph


def layout(graph: Graph) -> np.ndarray:
    """(sources + 1, 2) positions: layers from left to right, heads above the line, MLPs below; the logits last."""
    places = [(-1.5, 0.0)]
    for layer in range(graph.layers):
        places += [(layer, 1.0 + head) for head in range(graph.heads)] + [(layer + 0.5, -1.0)]
    return np.array([*places, (graph.layers + 1.0, 0.0)])


def circuit(ax, graph: Graph, mask: Tensor, scores: Tensor) -> None:
    """Draw a circuit: blue edges help, orange ones hurt, width by score; parts that take part are named."""
    places, owner = layout(graph), graph.owner.tolist()
    edges = mask.nonzero().tolist()
    largest = max(abs(scores[u, d].item()) for u, d in edges)
    drawn = set()
    for u, d in sorted(edges, key=lambda edge: abs(scores[edge[0], edge[1]].item())):
        v = owner[d]  # -1, the logits, is the last place
        value = scores[u, d].item()
        arrow = {"arrowstyle": "-", "connectionstyle": "arc3,rad=0.12", "alpha": 0.75}
        arrow |= {"color": "C0" if value > 0 else "C3", "lw": 0.6 + 4 * abs(value) / largest}
        ax.annotate("", xy=places[v], xytext=places[u], arrowprops=arrow)
        drawn |= {u, v % len(places)}
    signs = [Line2D([], [], color=color, label=label) for color, label in (("C0", "helps"), ("C3", "works against"))]
    ax.legend(handles=signs, loc="upper left", ncols=2)
    names = [*graph.source_names, "logits"]
    others = [i for i in range(len(places)) if i not in drawn]
    ax.scatter(*places[others].T, s=4, color="0.85", zorder=0)
    for i in drawn:
        box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "0.3", "lw": 0.6}
        ax.text(*places[i], names[i], ha="center", va="center", fontsize=7, bbox=box, zorder=3)
    ax.set(xlim=(-2.5, graph.layers + 2), ylim=(-2, graph.heads + 1), yticks=[], xlabel="layer")
    ax.spines["left"].set_visible(False)


def heat_map(ax, graph: Graph, nodes: Tensor) -> None:
    """Node scores as a map: layers across, heads and the MLP up; blue helps, red hurts."""
    grid = nodes[1:].reshape(graph.layers, graph.heads + 1).T.cpu().numpy()
    limit = np.abs(grid).max()
    image = ax.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
    ax.set(
        xlabel="layer", yticks=range(graph.heads + 1), yticklabels=[*(f"head {h}" for h in range(graph.heads)), "MLP"]
    )
    ax.figure.colorbar(image, ax=ax, label="score (logits)")
