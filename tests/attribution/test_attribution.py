"""Edge scores and circuits against brute force on a two-layer random Llama with grouped-query attention."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from compendium.attribution import circuits, contrast_pairs, scores
from compendium.attribution.decoder import Decoder, Pairs, logit_difference
from compendium.attribution.studies import circuits as study


def exact_norm(self, x):
    """RMSNorm without the usual detour through float32, which would drown finite differences."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


@pytest.fixture
def double(monkeypatch):
    """A float64 model, so that brute force is exact to many digits."""
    monkeypatch.setattr(LlamaRMSNorm, "forward", exact_norm)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=32,
        attention_bias=True,
    )
    model = LlamaForCausalLM(config).double().eval()
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias = None  # as in Qwen2: biases on q, k and v alone
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return Decoder(model)


@pytest.fixture(params=[0, 2], ids=["differ from the start", "begin alike"])
def pairs(request):
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(1, 50, (2, 3, 5), generator=generator)
    corrupt[:, : request.param] = clean[:, : request.param]
    right = torch.tensor([[3, -1], [4, 9], [7, -1]])
    return Pairs(clean, corrupt, right, torch.tensor([[1], [2], [5]]))


def run(decoder, stream, offsets):
    """The forward pass written once more, with `offsets[destination]` added to what each destination reads."""
    graph = decoder.graph
    for layer in range(graph.layers):
        block = decoder.family.layers[layer]
        reads = graph.reads(layer, "attention")
        parts = []
        for d in range(reads.start, reads.stop):
            kind, head = "qkv"[(d - reads.start) // graph.heads], (d - reads.start) % graph.heads
            normed = block.input_layernorm(stream + offsets.get(d, 0))
            parts.append(decoder.family.project(layer, normed)["qkv".index(kind)][:, :, head])
        q, k, v = (torch.stack(parts[i * graph.heads : (i + 1) * graph.heads], 2) for i in range(3))
        middle = stream + block.self_attn.o_proj(decoder.attend(layer, q, k, v).flatten(2))
        mlp = graph.reads(layer, "mlp").start
        stream = middle + block.mlp(block.post_attention_layernorm(middle + offsets.get(mlp, 0)))
    return decoder.logits(stream + offsets.get(graph.logits, 0))


def brute_force_eap(decoder, pairs, points):
    """Every edge by autograd through its own copy of the stream."""
    graph = decoder.graph
    clean, corrupt = decoder.embed(pairs.clean), decoder.embed(pairs.corrupt)
    difference = decoder.outputs(corrupt)[0] - decoder.outputs(clean)[0]
    total = torch.zeros(graph.n_sources, graph.n_destinations, dtype=torch.float64)
    for point in points:
        stream = (corrupt + point * (clean - corrupt)).detach()
        offsets = {d: torch.zeros_like(stream, requires_grad=True) for d in range(graph.n_destinations)}
        value = logit_difference(run(decoder, stream, offsets), pairs).sum()
        gradients = torch.autograd.grad(value, [offsets[d] for d in range(graph.n_destinations)])
        for u in range(graph.n_sources):
            for d in range(graph.n_destinations):
                if graph.possible[u, d]:
                    total[u, d] -= (difference[u] * gradients[d]).sum() / len(points) / len(pairs)
    return total


def test_the_laid_open_decoder_is_the_model(double, embedded):
    tokens = torch.randint(1, 50, (2, 7))
    torch.testing.assert_close(double.logits(double.forward(double.embed(tokens))), double.model(tokens).logits[:, -1])
    decoder = Decoder(embedded[0])
    tokens = torch.randint(1, 1000, (2, 9))
    with torch.no_grad():
        ours, theirs = decoder.logits(decoder.forward(decoder.embed(tokens))), embedded[0](tokens).logits[:, -1]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_stream_is_the_sum_of_its_sources(double, pairs):
    writes, final = double.outputs(double.embed(pairs.clean))
    torch.testing.assert_close(writes.sum(0), final)


def test_what_prompts_begin_with_alike_runs_once(double, pairs):
    past, clean, corrupt = double.prefix(pairs)
    shared = 5 - clean.shape[1]
    assert (pairs.clean[:, :shared] == pairs.corrupt[:, :shared]).all()
    assert (clean[:, 0] != corrupt[:, 0]).any()
    for tokens, rest in ((pairs.clean, clean), (pairs.corrupt, corrupt)):
        whole, final = double.outputs(double.embed(tokens))
        writes, end = double.outputs(double.embed(rest), past)
        torch.testing.assert_close(writes, whole[:, :, shared:])
        torch.testing.assert_close(end, final[:, shared:])
    same = Pairs(pairs.clean, pairs.clean, pairs.right, pairs.wrong)
    assert double.prefix(same)[1].shape[1] == 1  # the last token always runs


def test_graph_counts_and_names(double):
    graph = double.graph
    assert graph.n_sources == len(graph.source_names) == 11
    assert graph.n_destinations == len(graph.destination_names) == 27
    assert graph.n_edges == 12 * 1 + 5 + 12 * 6 + 10 + 11
    assert graph.source_names[graph.head(1, 2)] == "a1.h2"
    assert graph.destination_names[graph.reads(1, "k").start + 3] == "a1.h3<k>"
    for d, u in enumerate(graph.owner.tolist()[:-1]):
        assert graph.destination_names[d].startswith(graph.source_names[u])


@pytest.mark.parametrize("steps", [1, 3])
def test_scores_equal_per_edge_autograd(double, pairs, steps):
    expected = brute_force_eap(double, pairs, [k / steps for k in range(steps)])
    found = scores.eap_ig(double, pairs, steps=steps).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    expected = brute_force_eap(double, pairs, [1.0])
    torch.testing.assert_close(
        scores.eap(double, pairs).double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )


def test_scores_equal_finite_differences(double, pairs):
    found = scores.eap(double, pairs)
    clean = double.embed(pairs.clean).detach()
    difference = double.outputs(double.embed(pairs.corrupt))[0] - double.outputs(clean)[0]
    graph, step = double.graph, 1e-5
    for u, d in [(0, 0), (2, 14), (5, 20), (10, graph.logits), (4, 12), (6, 26)]:
        assert graph.possible[u, d]
        with torch.no_grad():
            ends = [run(double, clean, {d: sign * step * difference[u]}) for sign in (1, -1)]
        slope = (logit_difference(ends[0], pairs) - logit_difference(ends[1], pairs)).mean() / (2 * step)
        assert found[u, d].item() == pytest.approx(-slope.item(), rel=1e-5, abs=1e-8)


def test_integrated_gradients_sum_to_the_metric_difference(double, pairs):
    """Completeness: the path integral of the input's total score is m(clean) - m(corrupt)."""
    clean, corrupt = circuits.ends(double, pairs)
    expected = (clean - corrupt).mean().item()
    errors = [abs(scores.node_scores(scores.eap_ig(double, pairs, steps=s))[0].item() - expected) for s in (4, 16, 64)]
    assert errors[2] < errors[0]
    assert errors[2] < 0.02 * abs(expected)


def test_node_scores_are_gradients_at_node_outputs(double, pairs):
    graph = double.graph
    found = scores.node_scores(scores.eap(double, pairs))
    clean = double.embed(pairs.clean).detach()
    difference = double.outputs(double.embed(pairs.corrupt))[0] - double.outputs(clean)[0]
    for u in (1, 5, 8, 10):  # adding to a node's output is adding to all that reads after it
        offset = torch.zeros_like(clean, requires_grad=True)
        readers = {d: offset for d in range(graph.n_destinations) if graph.possible[u, d]}
        value = logit_difference(run(double, clean, readers), pairs).mean()
        (gradient,) = torch.autograd.grad(value, offset)
        assert found[u].item() == pytest.approx(-(gradient * difference[u]).sum().item(), rel=1e-4, abs=1e-6)


def test_patching_equals_one_forward_pass_a_node(double, pairs):
    graph = double.graph
    found = scores.patching(double, pairs)
    with torch.no_grad():
        clean, corrupt = double.embed(pairs.clean), double.embed(pairs.corrupt)
        difference = double.outputs(corrupt)[0] - double.outputs(clean)[0]
        base = logit_difference(run(double, clean, {}), pairs)
        for u in range(1, graph.n_sources):
            offsets = {d: difference[u] for d in range(graph.n_destinations) if graph.possible[u, d]}
            fall = (base - logit_difference(run(double, clean, offsets), pairs)).mean()
            assert found[u].item() == pytest.approx(fall.item(), rel=1e-4, abs=1e-5)
    clean, corrupt = circuits.ends(double, pairs)
    assert found[0].item() == pytest.approx((clean - corrupt).mean().item(), rel=1e-5)


def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(double, pairs):
    clean, corrupt = circuits.ends(double, pairs)
    everything = circuits.evaluate(double, pairs, double.graph.possible)
    nothing = circuits.evaluate(double, pairs, torch.zeros_like(double.graph.possible))
    torch.testing.assert_close(everything, clean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nothing, corrupt, rtol=1e-5, atol=1e-5)
    assert circuits.faithfulness(everything, clean, corrupt) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ablation", ["corrupt", "zero", "mean"])
def test_ablation_equals_brute_force(double, pairs, ablation):
    graph = double.graph
    generator = torch.Generator().manual_seed(2)
    mask = graph.possible & (torch.rand(graph.possible.shape, generator=generator) < 0.5)
    mean = circuits.mean_writes(double, pairs) if ablation == "mean" else None
    with torch.no_grad():
        base = double.outputs(double.embed(pairs.corrupt))[0]
        if ablation != "corrupt":
            base = torch.zeros_like(base) if mean is None else mean[:, None, None].expand_as(base)
        writes = base.clone()
        writes[0] = double.embed(pairs.clean)

        def read(d):
            return sum(writes[u] if mask[u, d] else base[u] for u in range(graph.n_sources) if graph.possible[u, d])

        for layer in range(graph.layers):
            block = double.family.layers[layer]
            for head in range(graph.heads):
                inputs = [block.input_layernorm(read(graph.reads(layer, kind).start + head)) for kind in "qkv"]
                q, k, v = (double.family.project(layer, x)[i][:, :, [head]] for i, x in enumerate(inputs))
                writes[graph.head(layer, head)] = (
                    double.attend(layer, q, k, v)[:, :, 0] @ double.weight(layer, "o")[head].T
                )
            writes[graph.mlp(layer)] = block.mlp(block.post_attention_layernorm(read(graph.reads(layer, "mlp").start)))
        expected = logit_difference(double.logits(read(graph.logits)), pairs)
    found = circuits.evaluate(double, pairs, mask, ablation=ablation, mean=mean)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_pruning_changes_nothing_that_matters(double, pairs):
    graph = double.graph
    generator = torch.Generator().manual_seed(3)
    ranked = torch.rand(graph.possible.shape, generator=generator)
    mask = graph.possible & (ranked < 0.15)
    pruned = circuits.prune(graph, mask)
    assert (pruned <= mask).all()
    torch.testing.assert_close(circuits.evaluate(double, pairs, pruned), circuits.evaluate(double, pairs, mask))


@pytest.mark.parametrize("select", [circuits.top_edges, circuits.greedy_edges])
def test_selection(double, pairs, select):
    graph = double.graph
    found = scores.eap_ig(double, pairs)
    assert torch.equal(select(graph, found, graph.n_edges), graph.possible)
    some = select(graph, found, 30)
    assert 0 < some.sum() <= 30
    assert (some <= graph.possible).all()
    assert some[:, graph.logits].any()
    assert torch.equal(circuits.prune(graph, some), some)
    with pytest.raises(ValueError, match="number of edges"):
        select(graph, found, graph.n_edges + 1)


def test_node_circuits_keep_all_edges_among_their_nodes(double, pairs):
    graph = double.graph
    everything = circuits.top_nodes(graph, torch.rand(graph.n_sources), graph.n_sources - 1)
    assert torch.equal(everything, graph.possible)
    ranked = torch.zeros(graph.n_sources)
    ranked[[graph.head(0, 2), graph.mlp(1)]] = torch.tensor([-2.0, 1.0])
    mask = circuits.top_nodes(graph, ranked, 2)
    kept = circuits.nodes(graph, mask).nonzero().flatten().tolist()
    assert kept == [graph.head(0, 2), graph.mlp(1)]
    assert mask[graph.head(0, 2), graph.reads(1, "mlp").start]
    assert not mask[:, graph.reads(1, "q")].any()
    assert mask.sum() == 3 + 2 + 3  # into the head's q, k, v; into the MLP; into the logits


def test_top_heads_are_heads(double):
    graph = double.graph
    ranked = torch.arange(graph.n_sources, dtype=torch.float) - 5
    kept = circuits.top_heads(graph, ranked, 3)
    assert [graph.source_names[i] for i in kept.nonzero()[:, 0]] == ["a0.h0", "a1.h2", "a1.h3"]
    with pytest.raises(ValueError, match="number of heads, 8; got 9"):
        circuits.top_heads(graph, ranked, 9)


def test_the_curve_ends_at_one_and_its_areas_add_up(double, pairs):
    rows = circuits.curve(double, pairs, scores.eap_ig(double, pairs), shares=(0.1, 0.5, 1.0))
    assert rows[-1]["faithfulness"] == pytest.approx(1, abs=1e-5)
    assert circuits.area_cmd_log([{"share": 0.1, "faithfulness": 0}, {"share": 1, "faithfulness": 1}]) == pytest.approx(
        0.5
    )
    line = [{"share": 0.5, "faithfulness": 0.5}, {"share": 1.0, "faithfulness": 1.0}]
    assert circuits.area_cpr(line) == pytest.approx(0.5)
    assert circuits.area_cmd(line) == pytest.approx(0.5)


def test_information_flow_shares_add_to_one(double, pairs):
    found = scores.information_flow(double, pairs)
    torch.testing.assert_close(found.sum(0), torch.ones(double.graph.n_destinations), rtol=1e-4, atol=1e-4)
    assert (found[~double.graph.possible] == 0).all()


def test_controls_know_the_pairs_or_nothing(double, pairs):
    change = scores.magnitude(double, pairs)
    writes = [double.outputs(double.embed(tokens))[0] for tokens in (pairs.clean, pairs.corrupt)]
    expected = (writes[1] - writes[0]).norm(dim=-1).mean((1, 2))
    torch.testing.assert_close(change[:, double.graph.logits].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(scores.random(double, pairs, seed=1), scores.random(double, pairs, seed=1))
    assert not torch.equal(scores.random(double, pairs, seed=1), scores.random(double, pairs, seed=2))
    assert study.overlap(change, change, 10) == 1


@pytest.mark.parametrize("task", contrast_pairs.TASKS)
def test_pairs_are_equal_length_different_and_split_without_overlap(embedded, task):
    tokenizer = embedded[1]
    train, heldout = (contrast_pairs.pairs(task, tokenizer, split=split, n=100) for split in contrast_pairs.SPLITS)
    assert len(train) >= 100
    assert len(heldout) >= 100
    for found in (train, heldout):
        assert (found.clean != found.corrupt).any(1).all()
        assert len(torch.cat([found.clean, found.corrupt], 1).unique(dim=0)) == len(found)
        assert torch.equal(
            found.clean,
            contrast_pairs.pairs(task, tokenizer, split=contrast_pairs.SPLITS[found is heldout], n=100).clean,
        )
    prompts = [{tuple(row) for row in found.clean.tolist()} for found in (train, heldout)]
    assert not prompts[0] & prompts[1]
    assert len(contrast_pairs.screen(Decoder(embedded[0]), train[:40])) >= 30


def test_unknown_tasks_are_refused(embedded):
    with pytest.raises(ValueError, match="unknown task 'capitals': choose one of country_capital"):
        contrast_pairs.pairs("capitals", embedded[1])
    with pytest.raises(ValueError, match="unknown split"):
        contrast_pairs.pairs("agreement", embedded[1], split="test")


def test_parameter_masks_contain_what_the_nodes_use(double):
    graph, size = double.graph, double.head_dim
    kept = torch.zeros(graph.n_sources, dtype=torch.bool)
    kept[[graph.head(0, 0), graph.head(0, 1), graph.mlp(1)]] = True
    masks = circuits.parameter_mask(double, kept, {1: torch.arange(40) < 4})
    assert masks["model.layers.0.self_attn.q_proj.weight"].sum() == 2 * size * 24
    assert masks["model.layers.0.self_attn.k_proj.weight"].sum() == size * 24  # heads 0 and 1 share it
    assert masks["model.layers.0.self_attn.o_proj.weight"][:, : 2 * size].all()
    assert masks["model.layers.0.self_attn.o_proj.weight"].sum() == 2 * size * 24
    assert masks["model.layers.1.mlp.down_proj.weight"].sum() == 4 * 24
    chosen = sum(mask.sum().item() for mask in masks.values())
    assert circuits.parameter_share(double, masks) == pytest.approx(
        chosen / sum(p.numel() for p in double.model.parameters())
    )
    everything = circuits.parameter_mask(double, torch.ones(graph.n_sources, dtype=torch.bool))
    assert all(mask.all() for mask in everything.values())
    with pytest.raises(ValueError, match="circuit is empty"):
        circuits.parameter_mask(double, torch.zeros(graph.n_sources, dtype=torch.bool))


def test_clear_errors(double, pairs):
    with pytest.raises(ValueError, match="OPTForCausalLM is not supported: choose a model among LlamaForCausalLM"):
        Decoder(
            OPTForCausalLM(
                OPTConfig(num_hidden_layers=1, num_attention_heads=2, hidden_size=8, ffn_dim=8, vocab_size=20)
            )
        )
    with pytest.raises(ValueError, match="must have one shape"):
        Pairs(torch.zeros(2, 5), torch.zeros(2, 6), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="no pairs"):
        pairs[:0]
    with pytest.raises(ValueError, match=r"the metric returned \(\); it must return one value per pair, shape \(3,\)"):
        scores.eap(double, pairs, lambda logits, p: logit_difference(logits, p).mean())
    with pytest.raises(ValueError, match="a circuit is a bool mask of shape"):
        circuits.evaluate(double, pairs, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="mean=mean_writes"):
        circuits.evaluate(double, pairs, double.graph.possible, ablation="mean")
    with pytest.raises(ValueError, match="score the same"):
        circuits.faithfulness(torch.ones(2), torch.ones(2), torch.ones(2))
