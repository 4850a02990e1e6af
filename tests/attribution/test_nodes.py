"""Nodes of any decoder: against the laid-open ones, against exact patching, and of families that are not laid open."""

import pytest
import torch
import transformers as t

from compendium.attribution import scores
from compendium.attribution.decoder import Decoder, Pairs, logit_difference
from compendium.attribution.nodes import Nodes, blocks
from tests.families import KINDS, made

NORMED_AFTER = {"gemma2", "gemma3", "olmo2"}
TINY = dict(vocab_size=61, pad_token_id=0)
OTHERS = {
    "OPT": lambda: t.OPTForCausalLM(
        t.OPTConfig(
            **TINY, hidden_size=16, num_hidden_layers=2, ffn_dim=24, num_attention_heads=2, word_embed_proj_dim=16
        )
    ),
    "BLOOM": lambda: t.BloomForCausalLM(t.BloomConfig(**TINY, hidden_size=16, n_layer=2, n_head=2)),
    "GPT-J": lambda: t.GPTJForCausalLM(t.GPTJConfig(**TINY, n_embd=16, n_layer=2, n_head=2, rotary_dim=4)),
    "Mixtral": lambda: t.MixtralForCausalLM(
        t.MixtralConfig(
            **TINY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=3,
        )
    ),
    "StarCoder2": lambda: t.Starcoder2ForCausalLM(
        t.Starcoder2Config(
            **TINY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    ),
    "Mamba": lambda: t.MambaForCausalLM(t.MambaConfig(**TINY, hidden_size=16, num_hidden_layers=2, state_size=4)),
}


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(1, 61, (2, 3, 8), generator=generator)
    right = torch.tensor([[3, -1], [4, 9], [7, -1]])
    return Pairs(clean, corrupt, right, torch.tensor([[1], [2], [5]]))


def other(name: str):
    torch.manual_seed(0)
    model = OTHERS[name]().eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim > 1:
            p.mul_(4 if name == "Mixtral" else 8)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_laid_open_decoders_nodes(kind, pairs):
    model = made(kind)
    decoder, nodes = Decoder(model), Nodes(model)
    assert nodes.names == decoder.graph.source_names
    exact = scores.patching(decoder, pairs)
    if kind not in NORMED_AFTER:
        expected = scores.node_scores(scores.eap_ig(decoder, pairs, steps=3))
        torch.testing.assert_close(
            nodes.eap_ig(pairs, steps=3), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
        )
        torch.testing.assert_close(nodes.patching(pairs), exact, rtol=1e-3, atol=1e-5)
    mlps = torch.tensor([0, *(i for i, name in enumerate(nodes.names) if name.startswith("m"))])
    torch.testing.assert_close(nodes.patching(pairs)[mlps], exact[mlps], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_other_decoders_have_nodes_whose_scores_are_slopes(name, pairs):
    """The score of a node at the corrupt prompt is how the metric falls as its output moves, by finite differences."""
    exact = name != "Mixtral"  # its experts' products know no double precision
    model = other(name).to(torch.float64 if exact else torch.float32)
    with pytest.raises(ValueError, match="is not supported"):
        Decoder(model)
    nodes = Nodes(model)
    heads = 0 if name == "Mamba" else 2
    assert len(nodes.names) == 1 + 2 * (heads + 1)
    found, step = nodes.eap_ig(pairs, steps=1), 1e-4 if exact else 2e-3
    (_, clean, _), (_, corrupt, logits) = map(nodes._values, (pairs.clean, pairs.corrupt))
    for n, part in enumerate(nodes.parts):
        for head in range(max(1, part.heads)):
            moved = corrupt[n] + step * (corrupt[n] - clean[n])
            with torch.no_grad(), nodes._hooked(None, nodes._swapped(n, head, moved)):
                end = logit_difference(nodes._logits(pairs.corrupt), pairs)
            slope = (logit_difference(logits, pairs) - end).mean() / step
            which = nodes.names.index(f"{part.name}.h{head}" if part.heads else part.name)
            assert float(found[which]) == pytest.approx(
                float(slope), rel=0.02 if exact else 0.1, abs=1e-6 if exact else 2e-3
            ), nodes.names[which]
    assert found[1:].abs().min() > 0
    assert nodes.circuit(found, 1.0)[1:].all()
    assert nodes.circuit(found, 0.0).sum() == 1


def test_gradients_flags_come_back_and_steps_are_checked(pairs):
    model = made("llama").requires_grad_(True)
    Nodes(model).eap_ig(pairs, steps=1)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Nodes(model).eap_ig(pairs, steps=0)


def test_a_model_without_blocks_is_named():
    model = made("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match="the blocks of this LlamaForCausalLM are not found"):
        blocks(model)
