"""The account of memory, and that results do not depend on how much there is."""

import csv

import pytest
import torch
import transformers as t

from compendium.attribution import circuits, memory, scores
from compendium.attribution.decoder import Decoder, Pairs
from compendium.paths import ROOT
from tests.families import made

SHAPE = memory.Shape(layers=4, heads=4, head_dim=16, width=64, mlp=128, vocabulary=97)


def test_the_account_is_within_a_quarter_of_what_was_measured():
    with open(ROOT / "benchmarks/memory.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 12
    for row in rows:
        sizes = {name: int(row[name]) for name in memory.Shape.__dataclass_fields__}
        given = {name: int(row[name]) for name in ("pairs", "tokens", "steps")}
        expected = memory.peak(memory.Shape(**sizes), **given)
        assert expected == pytest.approx(float(row["bytes"]), rel=0.25), row


def test_what_fits_is_the_most_that_fits():
    for gigabytes in (0.0305, 0.031, 0.033, 1):
        pairs, steps = memory.fit(SHAPE, tokens=6, gigabytes=gigabytes)
        assert memory.peak(SHAPE, pairs=pairs, tokens=6, steps=steps) <= gigabytes * 1e9
        if pairs < memory.PAIRS:
            assert memory.peak(SHAPE, pairs=pairs + 1, tokens=6, steps=steps) > gigabytes * 1e9
    assert memory.fit(SHAPE, tokens=6, gigabytes=None) == (memory.PAIRS, memory.STEPS)
    with pytest.raises(ValueError, match="one pair of 6 tokens needs"):
        memory.fit(SHAPE, tokens=6, gigabytes=1e-3)


def test_layers_are_cut_into_runs_that_fit():
    sizes = {"a": 4, "b": 5, "c": 9, "d": 20, "e": 1}
    assert memory.groups(sizes, 10e-9) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert memory.groups(sizes, None) == [list("abcde")]


@pytest.mark.parametrize("kind", ["llama", "pythia", "gemma3"])
def test_scores_and_circuits_do_not_depend_on_memory(kind):
    model = made(kind)
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(1, 61, (2, 7, 8), generator=generator)
    pairs = Pairs(clean, corrupt, torch.full((7, 1), 3), torch.full((7, 1), 5))
    little, much = (
        Decoder(model, memory.peak(memory.Shape.of(model), pairs=1, tokens=8, steps=1) * 1.0001e-9),
        Decoder(model),
    )
    assert little.at_once(pairs, 5) == (1, 1)
    found = [scores.eap_ig(decoder, pairs) for decoder in (little, much)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    mask = circuits.top_edges(much.graph, found[1], 40)
    torch.testing.assert_close(*(circuits.evaluate(decoder, pairs, mask) for decoder in (little, much)))


def test_passes_over_whole_prompts_count_all_their_tokens():
    model = made("llama")
    clean = torch.arange(1, 9).repeat(7, 1)
    corrupt = clean.clone()
    corrupt[:, -1] = 9
    pairs = Pairs(clean, corrupt, torch.full((7, 1), 3), torch.full((7, 1), 5))
    shape = memory.Shape.of(model)
    decoder = Decoder(model, memory.peak(shape, pairs=20, tokens=1, steps=1) * 1.0001e-9)
    assert [len(part) for part in decoder.chunks(pairs)] == [7]
    whole = decoder.at_once(pairs, whole=True)[0]
    assert whole == memory.fit(shape, tokens=8, gigabytes=decoder.memory, steps=1)[0] == 2


def test_the_books_table_is_what_the_account_says():
    text = (ROOT / "book/own_model.md").read_text(encoding="utf-8")
    shared = dict(num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_size=4096)
    models = {
        "Llama-3.1-8B": t.LlamaConfig(**shared, num_hidden_layers=32, intermediate_size=14336, vocab_size=128_256),
        "Qwen3-8B": t.Qwen3Config(**shared, num_hidden_layers=36, intermediate_size=12288, vocab_size=151_936),
        "Gemma-2-9B": t.Gemma2Config(
            num_hidden_layers=42,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=256,
            hidden_size=3584,
            intermediate_size=14336,
            vocab_size=256_000,
        ),
    }
    for name, config in models.items():
        config.tie_word_embeddings = name.startswith("Gemma")
        with torch.device("meta"):
            numbers = t.AutoModelForCausalLM.from_config(config).num_parameters()
        shape = memory.Shape.read(config, 2)
        said = [f"{shape.sources:,}", f"{2 * numbers / 1e9:.1f} GB"]
        said += [f"{memory.peak(shape, pairs=1, tokens=tokens) / 1e9:.2f} GB" for tokens in (6, 20, 60)]
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert line.rstrip(" |").split(" | ")[1:] == said
        if name.startswith("Llama"):
            fits = memory.fit(shape, tokens=60, gigabytes=50)[0]
            assert f"With 50 GB beside the weights, {fits} pairs of 60 tokens share a pass on Llama-3.1-8B" in text
