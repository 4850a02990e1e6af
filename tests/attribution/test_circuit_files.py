"""Circuits as files, there and back, and areas as MIB takes them."""

import itertools
import json

import pytest
import torch

from compendium.attribution import circuit_files, circuits
from compendium.attribution.graph import Graph


@pytest.mark.parametrize("parallel", [False, True])
def test_there_and_back(tmp_path, parallel):
    graph = Graph(2, 3, parallel)
    scores = torch.randn(graph.possible.shape, generator=torch.Generator().manual_seed(0)) * graph.possible
    mask = circuits.top_edges(graph, scores, 20)
    path = tmp_path / "circuit.json"
    circuit_files.write(path, graph, scores, mask, d_model=12)
    found = circuit_files.read(path)
    assert found.graph == graph
    torch.testing.assert_close(found.scores, scores)
    assert torch.equal(found.mask, mask)


def test_the_file_is_what_eap_ig_reads(tmp_path):
    graph = Graph(1, 2)
    mask = torch.zeros_like(graph.possible)
    mask[0, graph.reads(0, "q").start + 1] = mask[graph.head(0, 1), graph.logits] = True
    circuit_files.write(tmp_path / "c.json", graph, mask.float(), mask, d_model=8)
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["cfg"] == {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert list(found["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "logits"]
    assert [name for name, node in found["nodes"].items() if node["in_graph"]] == ["input", "a0.h1", "logits"]
    assert found["edges"]["input->a0.h1<q>"] == {"score": 1.0, "in_graph": True}
    assert {"input->a0.h0<k>", "a0.h0->m0", "m0->logits"} <= set(found["edges"])
    assert len(found["edges"]) == graph.n_edges


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no json", "is no circuit"),
        ('{"edges": {}}', "is no circuit"),
        ('{"cfg": {"n_layers": 1, "n_heads": 2}, "edges": {"m0->a0.h0<q>": {"score": 1}}}', "m0->a0.h0<q>"),
        ('{"cfg": {"n_layers": 1, "n_heads": 2}, "edges": {"input->a3.h0<q>": {"score": 1}}}', "a3.h0"),
    ],
)
def test_what_is_no_circuit_is_refused(tmp_path, text, why):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=why):
        circuit_files.read(tmp_path / "c.json")
    with pytest.raises(ValueError, match="no circuit"):
        circuit_files.read(tmp_path / "absent.json")


def test_areas_are_mibs_trapezoids():
    """MIB's own rule, written out: the sum over neighbouring shares of width times mean height."""
    rows = [
        {"share": s, "faithfulness": f} for s, f in ((0.001, -0.1), (0.01, 0.4), (0.1, 1.2), (0.5, 0.9), (1.0, 1.0))
    ]
    under = apart = 0.0
    for a, b in itertools.pairwise(rows):
        width = b["share"] - a["share"]
        under += width * (a["faithfulness"] + b["faithfulness"]) / 2
        apart += width * (abs(1 - a["faithfulness"]) + abs(1 - b["faithfulness"])) / 2
    assert circuits.area_cpr(rows, as_mib=True) == pytest.approx(under)
    assert circuits.area_cmd(rows, as_mib=True) == pytest.approx(apart)
    assert circuits.area_cpr(rows) == pytest.approx(under + 0.001 * -0.1 / 2)
