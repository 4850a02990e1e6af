"""Text as token ids, for any tokenizer and any model: what belongs to a text, what continues it, and padded batches.

    tokens.prompt(tokenizer, "The capital of France is")           # without the end token that some tokenizers append
    tokens.continuation(tokenizer, "The capital of France is", " Paris")
    inputs = tokens.padded(model, rows, pad)                        # padded on the left, as generation needs it
    model(**inputs)

Tokenizers differ in what they put around a text (T5 and BERT append an end token) and in what a space is: byte-level
ones have a token " Paris", SentencePiece ones may cut " Paris" alone into "▁" and "▁Paris" (Llama 2). So nothing here
is tokenised without the text before it, and what is appended is taken off.
"""

import inspect
import re
from collections.abc import Sequence

import torch

PROBE = "a"


def appended(tokenizer) -> int:
    """How many tokens the tokenizer puts after every text."""
    whole, plain = tokenizer(PROBE)["input_ids"], tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    for start in range(len(whole) - len(plain), -1, -1):
        if plain and whole[start : start + len(plain)] == plain:
            return len(whole) - len(plain) - start
    return 0


def prompts(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that something is to follow: with the tokenizer's beginning, without its end."""
    if not len(texts):
        return []
    cut = appended(tokenizer)
    return [ids[: len(ids) - cut] for ids in tokenizer(list(texts))["input_ids"]]


def prompt(tokenizer, text: str) -> list[int]:
    """`prompts` of one text."""
    return prompts(tokenizer, [text])[0]


def continuations(tokenizer, text: str, endings: Sequence[str]) -> list[list[int] | None]:
    """Token ids that each ending adds to a text, nothing put around them; None where the ending changes the text's own
    last token, or adds none."""
    before, *whole = tokenizer([text, *(text + ending for ending in endings)], add_special_tokens=False)["input_ids"]
    n = len(before)
    return [ids[n:] if ids[:n] == before and len(ids) > n else None for ids in whole]


def continuation(tokenizer, text: str, ending: str) -> list[int]:
    """`continuations` of one ending. Raises ValueError where the tokenizer does not tell text and ending apart."""
    (found,) = continuations(tokenizer, text, [ending])
    if found is None:
        raise ValueError(
            f"the tokenizer does not tell {ending!r} from the text before it, {text[-40:]!r}: choose another wording"
        )
    return found


def padded(model, rows: Sequence[Sequence[int]], pad: int | None) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask of rows of token ids, padded on the left to one length, on the model's device; and
    position_ids, where padding would otherwise move what a position means to the model.

    pad: the token to pad with, any token where None, as none is seen. Raises ValueError for an empty row, and for one
    longer than the model has positions for.
    """
    lengths = [len(row) for row in rows]
    if not min(lengths):
        raise ValueError("an empty row of tokens: the tokenizer makes nothing of a prompt")
    longest = max(lengths)
    ids = torch.tensor([[pad or 0] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])
    made = {"input_ids": ids, "attention_mask": mask} | positions(model, mask)
    return {name: part.to(model.device) for name, part in made.items()}


def check_packs(model, what: str) -> None:
    """Raise ValueError unless several texts, or parts of one, can share a row of the model, with positions and a mask
    (b, 1, t, t) of their own. what: these parts, for the message."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config
    takes = inspect.signature(inner.base_model.forward).parameters
    fits = (
        config._attn_implementation in ("sdpa", "eager")
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "alibi", False)
        and {"position_ids", "attention_mask"} <= set(takes)
    )
    if not fits:
        raise ValueError(
            f"{what} are packed with a mask that this {type(inner).__name__} with {config._attn_implementation!r} "
            "attention (or a sliding window, or without position_ids) cannot take: load a full-attention model with "
            "attn_implementation='sdpa'"
        )


def positions(model, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`{"position_ids": (b, t)}`, each row's tokens in view counted from 0, for a model that takes them and to which a
    place means more than a distance to other places; `{}` for others. mask: (b, t), 1 for tokens in view.

    Rotary models in single precision are left to count for themselves: only distances enter, and other angles would
    change last digits.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        return {}
    rotary = any(type(module).__name__.endswith("RotaryEmbedding") for module in inner.modules())
    scaled = re.search("dynamic|longrope|llama_4", str(getattr(inner.config, "rope_parameters", "")))
    if rotary and not scaled and next(inner.parameters()).dtype == torch.float32:
        return {}
    if scaled and "llama_4" not in scaled[0] and len(set(mask.sum(-1).tolist())) > 1:
        most = inner.config.max_position_embeddings
        start = inner.config.rope_parameters.get("original_max_position_embeddings", most)
        if mask.shape[-1] > start:
            raise ValueError(
                f"this model turns all positions of a batch by its longest row, beyond {start} tokens: say batch=1"
            )
    found = (mask.long().cumsum(-1) - 1).clamp(min=0)
    limit = getattr(inner.config, "max_position_embeddings", None)
    if limit and not rotary and int(found.max()) >= limit:
        raise ValueError(f"a row of {int(found.max()) + 1} tokens is longer than the model's {limit} positions")
    return {"position_ids": found}
