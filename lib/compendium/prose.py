"""How well a model predicts running text: the utility measure that refusals and unlearning share."""

import numpy as np
import torch

from compendium import records, tokens
from compendium.paths import DATA

SPLITS = ("train", "heldout")


@torch.inference_mode()
def perplexity(model, tokenizer, texts: list[str], *, batch: int = 8) -> float:
    """exp of the mean negative log-likelihood per token, each text read from its start. Raises ValueError for no texts,
    or one of fewer than two tokens."""
    rows = sorted((tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts), key=len)
    if not rows or len(rows[0]) < 2:
        raise ValueError("perplexity needs texts of at least two tokens each: one to read, one to predict")
    tokens.check_readout(model)
    total = count = 0
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        length = max(map(len, part))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in part], device=model.device)
        targets = torch.tensor([row + [-100] * (length - len(row)) for row in part], device=model.device)[:, 1:]
        seen = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in part], device=model.device)
        hidden = model.base_model(ids, attention_mask=seen, use_cache=False).last_hidden_state[:, :-1][targets >= 0]
        logits = tokens.readout(model, hidden)
        total += torch.nn.functional.cross_entropy(logits, targets[targets >= 0], reduction="sum").item()
        count += len(hidden)
    return float(np.exp(total / count))


def prose(split: str) -> list[str]:
    """Paragraphs that no edit should make harder to predict: the first half to train with, the second held out."""
    texts = records.table(DATA / "prose.csv", ["text"]).text.tolist()
    half = len(texts) // 2
    return {"train": texts[:half], "heldout": texts[half:]}[check_split(split)]


def check_split(split: str) -> str:
    """`split`, if it is one of SPLITS. Raises ValueError."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    return split
