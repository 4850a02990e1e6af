import os

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from compendium import models
from compendium.tabular.pfn import Network, Shape

os.environ["COMPENDIUM_STATIC"] = "1"  # nbval compares what sliders say where nobody moves them


@pytest.fixture(scope="session")
def embedded():
    """The embedded model and tokenizer; tests must leave the weights as they were."""
    models.set_threads(2)
    return models.load()


@pytest.fixture
def tiny():
    """A random two-layer Llama with grouped-query attention and widths divisible by 64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def network():
    """A small random prior-fitted network whose layers do something."""
    models.set_threads(1)
    torch.manual_seed(0)
    made = Network(Shape(width=32, layers=2, heads=2, hidden=64)).eval()
    for layer in made.layers:
        torch.nn.init.normal_(layer.out.weight, std=0.2)
        torch.nn.init.normal_(layer.down.weight, std=0.2)
    return made
