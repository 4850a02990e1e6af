"""Every family of decoders, on tiny random models with odd sizes: the laid-open forward pass, edges, circuits, masks."""

import pytest
import torch
import transformers as t

from compendium.attribution import circuits, norms, scores
from compendium.attribution.decoder import Decoder, Pairs, logit_difference
from tests.families import KINDS, made


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[0, 3], ids=["differ from the start", "begin alike"])
def pairs(request):
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(1, 61, (2, 3, 8), generator=generator)
    corrupt[:, : request.param] = clean[:, : request.param]
    right = torch.tensor([[3, -1], [4, 9], [7, -1]])
    return Pairs(clean, corrupt, right, torch.tensor([[1], [2], [5]]))


def run(decoder, stream, offsets):
    """The forward pass once more, with `offsets[destination]` added to what each destination reads."""
    graph, family = decoder.graph, decoder.family
    for layer in range(graph.layers):
        reads = graph.reads(layer, "attention")
        parts = []
        for d in range(reads.start, reads.stop):
            which, head = (d - reads.start) // graph.heads, (d - reads.start) % graph.heads
            parts.append(family.project(layer, decoder.normed(layer, stream + offsets.get(d, 0)))[which][:, :, head])
        q, k, v = (torch.stack(parts[i * graph.heads : (i + 1) * graph.heads], 2) for i in range(3))
        middle = stream + decoder.attention(layer, decoder.attend(layer, q, k, v))
        mlp = graph.reads(layer, "mlp").start
        stream = middle + decoder.mlp(layer, (stream if graph.parallel else middle) + offsets.get(mlp, 0))
    return decoder.logits(stream + offsets.get(graph.logits, 0))


def split_streams(decoder, pairs):
    """Every edge by autograd through its own copy of the stream, at the clean prompts."""
    graph = decoder.graph
    clean, corrupt = decoder.embed(pairs.clean), decoder.embed(pairs.corrupt)
    difference = decoder.outputs(corrupt)[0] - decoder.outputs(clean)[0]
    offsets = {d: torch.zeros_like(clean, requires_grad=True) for d in range(graph.n_destinations)}
    value = logit_difference(run(decoder, clean.detach(), offsets), pairs).sum()
    gradients = torch.autograd.grad(value, [offsets[d] for d in range(graph.n_destinations)])
    found = -torch.stack([(difference * g).flatten(1).sum(1) for g in gradients], 1) / len(pairs)
    return found * graph.possible


def test_the_laid_open_decoder_is_the_model(kind):
    decoder = Decoder(made(kind))
    tokens = torch.randint(1, 61, (2, 11), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = decoder.logits(decoder.forward(decoder.embed(tokens))), decoder.model(tokens).logits[:, -1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_stream_is_the_sum_of_its_sources_and_of_biases(kind, pairs):
    decoder = Decoder(made(kind))
    writes, final = decoder.outputs(decoder.embed(pairs.clean))
    constants = sum(decoder.constant(layer) for layer in range(decoder.graph.layers))
    torch.testing.assert_close(writes.sum(0) + constants, final, rtol=1e-4, atol=1e-5)


def test_edges_equal_autograd_through_split_streams(kind, pairs):
    decoder = Decoder(made(kind))
    expected = split_streams(decoder, pairs)
    found = scores.eap(decoder, pairs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert expected.abs().max() > 0
    if not decoder.graph.parallel:
        return
    assert not decoder.graph.possible[decoder.graph.head(1, 0), decoder.graph.reads(1, "mlp")].any()


def test_a_source_is_the_sum_of_its_edges(kind, pairs):
    """By the gradient at what the source adds to the stream."""
    decoder = Decoder(made(kind))
    graph = decoder.graph
    clean, corrupt = decoder.embed(pairs.clean), decoder.embed(pairs.corrupt)
    difference = decoder.outputs(corrupt)[0] - decoder.outputs(clean)[0]
    added = torch.zeros_like(difference, requires_grad=True)
    stream = clean + added[0]
    for layer in range(graph.layers):
        z = decoder.attend(layer, *decoder.family.project(layer, decoder.normed(layer, stream)))
        middle = stream + decoder.attention(layer, z) + added[graph.head(layer, 0) : graph.mlp(layer)].sum(0)
        stream = middle + decoder.mlp(layer, stream if graph.parallel else middle) + added[graph.mlp(layer)]
    value = logit_difference(decoder.logits(stream), pairs).sum()
    (gradient,) = torch.autograd.grad(value, added)
    expected = -(difference * gradient).flatten(1).sum(1) / len(pairs)
    found = scores.node_scores(scores.eap(decoder, pairs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(kind, pairs):
    decoder = Decoder(made(kind))
    clean, corrupt = circuits.ends(decoder, pairs)
    whole = circuits.evaluate(decoder, pairs, decoder.graph.possible)
    nothing = circuits.evaluate(decoder, pairs, torch.zeros_like(decoder.graph.possible))
    torch.testing.assert_close(whole, clean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(nothing, corrupt, rtol=1e-4, atol=1e-5)


def test_patching_a_part_is_replacing_what_it_adds(kind, pairs):
    decoder = Decoder(made(kind))
    graph = decoder.graph
    found = scores.patching(decoder, pairs)
    with torch.no_grad():
        clean, corrupt = (decoder.outputs(decoder.embed(x))[0] for x in (pairs.clean, pairs.corrupt))
        base = logit_difference(decoder.model(pairs.clean).logits[:, -1], pairs)
        for u in (graph.head(0, 1), graph.mlp(1), graph.head(2, 3)):
            added = torch.zeros_like(clean)
            added[u] = corrupt[u] - clean[u]
            stream = clean[0]
            for layer in range(graph.layers):
                z = decoder.attend(layer, *decoder.family.project(layer, decoder.normed(layer, stream)))
                middle = stream + decoder.attention(layer, z) + added[graph.head(layer, 0) : graph.mlp(layer)].sum(0)
                stream = middle + decoder.mlp(layer, stream if graph.parallel else middle) + added[graph.mlp(layer)]
            expected = (base - logit_difference(decoder.logits(stream), pairs)).mean()
            torch.testing.assert_close(found[u], expected, rtol=1e-3, atol=1e-5)


def test_bfloat16_scores_go_with_those_of_float32(kind, pairs):
    full, half = Decoder(made(kind)), Decoder(made(kind, torch.bfloat16))
    a, b = scores.eap(full, pairs), scores.eap(half, pairs)
    assert b.dtype == torch.float32
    there = full.graph.possible
    assert torch.corrcoef(torch.stack([a[there], b[there]]))[0, 1] > 0.99


def test_a_mask_of_all_nodes_holds_every_weight_matrix_of_the_layers_and_nothing_twice(kind):
    decoder = Decoder(made(kind))
    graph = decoder.graph
    every = circuits.parameter_mask(decoder, torch.ones(graph.n_sources, dtype=torch.bool))
    layers = {id(p): n for i in range(graph.layers) for n, p in decoder.family.layers[i].named_parameters()}
    matrices = {n for n, p in decoder.model.named_parameters() if p.ndim == 2 and id(p) in layers}
    assert set(every) == matrices
    assert all(mask.all() for mask in every.values())
    one = torch.zeros(graph.n_sources, dtype=torch.bool)
    one[graph.head(1, 2)] = True
    held = sum(int(m.sum()) for m in circuits.parameter_mask(decoder, one).values())
    assert held == 4 * decoder.head_dim * decoder.d_model


def test_weights_outside_a_heads_mask_do_not_touch_what_it_computes(kind):
    """The queries and the output of head 2 of layer 1 stay when everything else of its matrices is set to zero."""
    decoder = Decoder(made(kind))
    graph, layer, head = decoder.graph, 1, 2
    one = torch.zeros(graph.n_sources, dtype=torch.bool)
    one[graph.head(layer, head)] = True
    stream = torch.randn(1, 3, decoder.d_model, generator=torch.Generator().manual_seed(3))
    z = torch.randn(1, 3, graph.heads, decoder.head_dim, generator=torch.Generator().manual_seed(4))

    def seen():
        out = torch.einsum("nthe,hde->hntd", z, decoder.weight(layer, "o"))[head]
        return [x[:, :, head] for x in decoder.family.project(layer, stream)] + [out]

    before = [x.clone() for x in seen()]
    names = dict(decoder.model.named_parameters())
    for name, mask in circuits.parameter_mask(decoder, one).items():
        names[name].mul_(mask)
    for old, new in zip(before, seen(), strict=True):
        torch.testing.assert_close(new, old)


def test_other_models_are_refused_by_name():
    model = t.OPTForCausalLM(
        t.OPTConfig(
            vocab_size=61,
            hidden_size=16,
            num_hidden_layers=1,
            ffn_dim=16,
            num_attention_heads=2,
            word_embed_proj_dim=16,
        )
    )
    with pytest.raises(ValueError, match="OPTForCausalLM is not supported"):
        Decoder(model)


@pytest.mark.parametrize("norm", [torch.nn.LayerNorm(7), torch.nn.RMSNorm(7), None])
def test_the_way_back_through_a_norm_is_autograds(norm):
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    if norm is not None:
        norm = norm.double()
        torch.nn.init.normal_(norm.weight)
    gradient = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    if isinstance(norm, torch.nn.RMSNorm):
        norm.eps = 1e-6
    found = norms.norm_vjp(norm, x.detach(), gradient.clone())
    for h in range(4):
        y = x if norm is None else norm(x)
        (expected,) = torch.autograd.grad(y, x, gradient[:, :, h], retain_graph=True)
        torch.testing.assert_close(found[:, :, h], expected)
