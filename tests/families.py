"""One tiny random model of each family of decoders, with odd sizes, short windows and grouped heads."""

import torch
import transformers as t

from compendium import models

SMALL = dict(vocab_size=61, hidden_size=40, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64)
GROUPED = SMALL | dict(num_key_value_heads=2, intermediate_size=56, pad_token_id=0)
KINDS = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, GROUPED),
    "llama with biases": (t.LlamaForCausalLM, t.LlamaConfig, GROUPED | dict(attention_bias=True)),
    "mistral": (t.MistralForCausalLM, t.MistralConfig, GROUPED | dict(sliding_window=4, head_dim=10)),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, GROUPED),
    "qwen2, local layers": (
        t.Qwen2ForCausalLM,
        t.Qwen2Config,
        GROUPED | dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, GROUPED | dict(head_dim=12)),
    "gemma2": (
        t.Gemma2ForCausalLM,
        t.Gemma2Config,
        GROUPED
        | dict(
            head_dim=12,
            sliding_window=4,
            query_pre_attn_scalar=20,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=8.0,
        ),
    ),
    "gemma3": (
        t.Gemma3ForCausalLM,
        t.Gemma3TextConfig,
        GROUPED
        | dict(
            head_dim=12,
            sliding_window=4,
            query_pre_attn_scalar=20,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, dict(vocab_size=61, n_embd=40, n_layer=3, n_head=4, n_positions=64)),
    "pythia": (t.GPTNeoXForCausalLM, t.GPTNeoXConfig, SMALL | dict(intermediate_size=56, rotary_pct=0.4)),
    "neox in sequence": (
        t.GPTNeoXForCausalLM,
        t.GPTNeoXConfig,
        SMALL | dict(intermediate_size=56, rotary_pct=0.4, use_parallel_residual=False),
    ),
    "olmo2": (t.Olmo2ForCausalLM, t.Olmo2Config, GROUPED),
    "phi3": (
        t.Phi3ForCausalLM,
        t.Phi3Config,
        GROUPED
        | dict(
            hidden_size=48,
            partial_rotary_factor=0.5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
    ),
    "smollm3": (t.SmolLM3ForCausalLM, t.SmolLM3Config, GROUPED | dict(no_rope_layers=[1, 0, 1])),
}


KINDS["gpt2, as linear"] = KINDS["gpt2"]


def made(kind: str, dtype=torch.float32):
    model, config, given = KINDS[kind]
    torch.manual_seed(0)
    found = model(config(**given)).eval()
    with torch.no_grad():
        for name, p in found.named_parameters():
            scale = 0.15 if p.ndim > 1 else 0.1
            p.copy_(
                torch.randn_like(p) * scale
                + (1.0 if p.ndim == 1 and "norm" in name and "gemma" not in kind and "bias" not in name else 0)
            )
            if "ln_" in name and name.endswith("weight"):
                p.add_(1.0)
    if kind.endswith("as linear"):
        models.as_linear(found)
    return found.to(dtype).requires_grad_(False)
