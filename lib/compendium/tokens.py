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
import weakref
from collections.abc import Callable, Sequence

import torch

PROBE = "a"
PROBED = weakref.WeakKeyDictionary()  # what was found of a model: {question: whether it is so}


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

    pad: the token to pad with, any token where None, as none is seen. Raises ValueError for an empty row, for one
    longer than the model has positions for, and for rows of several lengths where the model reads padding all the same.
    """
    lengths = [len(row) for row in rows]
    if not min(lengths):
        raise ValueError("an empty row of tokens: the tokenizer makes nothing of a prompt")
    longest = max(lengths)
    ids = torch.tensor([[pad or 0] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])
    placed = positions(model, mask)
    if longest == min(lengths):
        placed = {}  # as the model counts by itself, from 0 or from where it was trained to
    else:
        check_padding(model)
    made = {"input_ids": ids, "attention_mask": mask} | placed
    return {name: part.to(model.device) for name, part in made.items()}


def check_padding(model) -> None:
    """Raise ValueError unless rows padded on the left count as they do alone, with a mask and `positions`."""
    if not _so(model, "padded", lambda: _pads(model, placed=True)):
        raise ValueError(
            f"this {type(_inner(model)).__name__} reads padding, or counts positions in its own way: rows of several "
            "lengths cannot share a batch, ask them one at a time (batch=1)"
        )


def check_left_padding(model) -> None:
    """Raise ValueError unless rows padded on the left count as they do alone, with an attention mask and no positions:
    what TRL gives."""
    if not _so(model, "padded, unplaced", lambda: _pads(model, placed=False)):
        raise ValueError(
            f"prompts are padded on the left and given no positions, and this {type(_inner(model)).__name__} counts "
            "them from the padding: it would learn from shifted log-probabilities; choose a model with rotary "
            "positions, such as Llama, Qwen2 or GPT-NeoX"
        )


def window(model) -> int | None:
    """How many tokens back the layers look that look least far; None where all see everything before them."""
    config = _inner(model).config
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None) or None


def _takes_masks(model, longest: int | None) -> bool:
    """Whether a mask of our own is what the model attends by: it replaces a window, so no row may be longer."""
    inner, back = _inner(model), window(model)
    config, takes = inner.config, inspect.signature(inner.base_model.forward).parameters
    return (
        getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
        and (back is None or (longest is not None and longest <= back))
        and not getattr(config, "alibi", False)
        and {"position_ids", "attention_mask"} <= set(takes)
    )


def can_pack(model, longest: int) -> bool:
    """Whether texts of at most so many tokens can share a row, as `check_packs` asks. Raises as `check_readout`."""
    check_readout(model)
    return _takes_masks(model, longest) and _so(model, "packs", lambda: _packs(model))


def check_packs(model, what: str, longest: int | None = None) -> None:
    """Raise ValueError unless several texts, or parts of one, can share a row of the model, with positions and a mask
    (b, 1, t, t) of their own, and `readout` gives the model's logits. what: these parts, for the message. longest: of
    the texts, in tokens, which a model that looks back less far cannot take."""
    inner = _inner(model)
    config = inner.config
    if not _takes_masks(model, longest):
        raise ValueError(
            f"{what} are packed with a mask that this {type(inner).__name__} with {config._attn_implementation!r} "
            "attention (or a sliding window shorter than they are, or without position_ids) cannot take: load a "
            "full-attention model with attn_implementation='sdpa'"
        )
    check_readout(model)
    if not _so(model, "packs", lambda: _packs(model)):
        raise ValueError(
            f"{what} are packed with positions and a mask of their own, which this {type(inner).__name__} does not "
            "count as each alone: load another full-attention model, such as Llama, Qwen2 or GPT-NeoX"
        )


def check_readout(model) -> None:
    """Raise ValueError unless `readout` of what leaves the model's body gives the model's logits."""
    if not _so(model, "reads out", lambda: _reads_out(model)):
        raise ValueError(
            f"this {type(_inner(model)).__name__} computes more after its last block than an output layer and a known "
            "scale: its log-probabilities would be wrong; choose a model such as Llama, Qwen2 or GPT-NeoX"
        )


def readout(model, hidden: torch.Tensor) -> torch.Tensor:
    """Logits in single precision from states that leave the model's body, (..., d) -> (..., vocabulary), with the cap
    or the scale of Gemma, Cohere and Granite."""
    logits, config = model.get_output_embeddings()(hidden).float(), model.config
    cap, times = getattr(config, "final_logit_softcapping", None), getattr(config, "logit_scale", None)
    over = getattr(config, "logits_scaling", None)
    if cap:
        logits = cap * torch.tanh(logits / cap)
    if times:
        logits = times * logits
    return logits / over if over else logits


def _inner(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _so(model, question: str, answer: Callable[[], bool]) -> bool:
    """The answer to a question about how a model computes, asked once for each model; it draws no random numbers."""
    known = PROBED.setdefault(_inner(model), {})
    if question not in known:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                known[question] = answer()
        except (RuntimeError, ValueError, TypeError, IndexError):  # what it cannot even be given
            known[question] = False
        finally:
            model.train(training)
    return known[question]


def _probe(model, n: int = 4) -> torch.Tensor:
    """A row (1, n) of token ids that every model has."""
    return torch.arange(1, n + 1, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits agree but for rounding; true of models that are broken (nan), of which others complain."""
    slack = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.1
    found, expected = found.float(), expected.float()
    size = float(expected.abs().max())
    return not (float((found - expected).abs().max()) > slack * max(size, 1e-30))


def _pads(model, placed: bool) -> bool:
    row = _probe(model)
    wide = torch.cat([torch.zeros_like(row[:, :3]), row], 1)
    mask = torch.tensor([[0] * 3 + [1] * row.shape[1]], device=model.device)
    where = {k: v.to(model.device) for k, v in positions(model, mask).items()} if placed else {}
    return _alike(model(input_ids=wide, attention_mask=mask, **where).logits[:, 3:], model(row).logits)


def _packs(model) -> bool:
    row = _probe(model)
    n = row.shape[1]
    alone = torch.cat([model(part).logits for part in row.split(n // 2, 1)], 1)
    owner = torch.arange(n, device=model.device) // (n // 2)
    sees = (owner[:, None] == owner).tril()[None, None]
    mask = torch.zeros(sees.shape, dtype=model.dtype, device=model.device)
    mask.masked_fill_(~sees, torch.finfo(model.dtype).min)
    place = torch.arange(n, device=model.device)[None] % (n // 2)
    hidden = model.base_model(row, position_ids=place, attention_mask=mask, use_cache=False).last_hidden_state
    return _alike(readout(model, hidden).to(alone.dtype), alone)


def _reads_out(model) -> bool:
    row = _probe(model)
    expected = model(row).logits
    hidden = model.base_model(row, use_cache=False).last_hidden_state
    return _alike(readout(model, hidden).to(expected.dtype), expected)


def positions(model, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`{"position_ids": (b, t)}`, each row's tokens in view counted from 0, for a model that takes them and to which a
    place means more than a distance to other places; `{}` for others. mask: (b, t), 1 for tokens in view.

    Rotary models in single precision are left to count for themselves: only distances enter, and other angles would
    change last digits.
    """
    inner = _inner(model)
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
