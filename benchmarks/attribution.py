"""All-edge EAP-IG and circuit evaluation beside plain forward and backward passes, in one run.

    python benchmarks/attribution.py [--threads 2] [--steps 5] [--pairs 20] [--repeats 3]

Where TransformerLens (before version 4; not part of requirements.txt) is installed, its split-hook forward and
backward pass is timed on the same prompts too.
"""

import argparse
import importlib.util
import resource
import time

import numpy as np
import torch

from compendium import models
from compendium.attribution import circuits, contrast_pairs, scores
from compendium.attribution.decoder import Decoder


def plain(model, tokens, steps: int) -> None:
    """The floor: `steps` forward and backward passes to the input embedding, with logits at every position."""
    for _ in range(steps):
        embedding = model.get_input_embeddings()(tokens).detach().requires_grad_(True)
        model(inputs_embeds=embedding).logits[:, -1].logsumexp(-1).sum().backward()


def split_hooks(model, tokens, steps: int):
    """TransformerLens with per-head results and split q, k, v inputs. Random weights of our model's shapes: the work is
    the same, and it cannot load this model without a hub.
    """
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    c = model.config
    hooked = HookedTransformer(
        HookedTransformerConfig(
            n_layers=c.num_hidden_layers,
            d_model=c.hidden_size,
            d_head=c.hidden_size // c.num_attention_heads,
            n_heads=c.num_attention_heads,
            n_key_value_heads=c.num_key_value_heads,
            d_mlp=c.intermediate_size,
            d_vocab=c.vocab_size,
            n_ctx=64,
            act_fn="silu",
            gated_mlp=True,
            normalization_type="RMS",
            positional_embedding_type="rotary",
            rotary_dim=c.hidden_size // c.num_attention_heads,
            device="cpu",
            seed=0,
        )
    )
    hooked.set_use_attn_result(True)
    hooked.set_use_split_qkv_input(True)
    hooked.set_use_hook_mlp_in(True)

    def work():
        for _ in range(steps):
            hooked(tokens)[:, -1].logsumexp(-1).sum().backward()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("threads", 2), ("steps", 5), ("pairs", 20), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    models.set_threads(given.threads)
    model, tokenizer = models.load()
    model.requires_grad_(False)
    decoder = Decoder(model)
    pairs = contrast_pairs.pairs("country_capital", tokenizer, n=given.pairs)
    found = scores.eap_ig(decoder, pairs, steps=1)
    mask = circuits.top_edges(decoder.graph, found, 2000)
    works = {
        f"{given.steps} plain forward + backward": lambda: plain(model, pairs.clean, given.steps),
        f"EAP, {decoder.graph.n_edges:,} edges": lambda: scores.eap(decoder, pairs),
        f"EAP-IG, {given.steps} steps": lambda: scores.eap_ig(decoder, pairs, steps=given.steps),
        "circuit evaluation": lambda: circuits.evaluate(decoder, pairs, mask),
        "exact node patching": lambda: scores.patching(decoder, pairs),
    }
    if importlib.util.find_spec("transformer_lens"):
        works[f"{given.steps} split-hook forward + backward"] = split_hooks(model, pairs.clean, given.steps)
    times = {name: [] for name in works}
    for repeat in range(given.repeats + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    base = np.array(next(iter(times.values())))
    tokens = tuple(pairs.clean.shape)
    print(f"{tokens[0]} pairs of {tokens[1]} tokens, {torch.get_num_threads()} threads, median of {given.repeats}")
    for name, seconds in times.items():
        print(f"{name:36} {np.median(seconds):6.2f} s   {np.median(np.array(seconds) / base):5.2f} x the plain passes")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
