"""Does a model refuse, whom, and at what price? Everything is measured on greedy replies and held-out text.

A policy names one category of prompts to refuse. Its *examples* are prompts to refuse, each with a refusal; prompts to
keep (near misses, neutral prompts, the other categories), each with the reply that the untouched model gives; and the
same replies to the prompts it should refuse, as the contrast. `contrast` pairs both kinds for attribution.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compendium import facts, packing, tokens
from compendium.attribution.decoder import Pairs
from compendium.attribution.refusal import prompt_sets
from compendium.attribution.refusal.measure import KEPT, encode, fact_split, kept, reply
from compendium.prose import prose

ANSWER = 6  # tokens of a refusal that are trained on


@dataclass(frozen=True)
class Examples:
    """Training rows of one policy: `refuse` and `comply` share their prompts; `keep` and `plain` text must stay."""

    refuse: list[facts.Row]
    comply: list[facts.Row]
    keep: list[facts.Row]
    plain: list[facts.Row]


def examples(model, tokenizer, targets: list[str], *, per_kind: int = 30, seed: int = 0) -> Examples:
    """Train examples of a policy: `per_kind` of each category to refuse, of each category to answer, of near misses,
    of neutral prompts, and of plain text: beginnings of train prose, and facts of the train half.

    A kind with fewer is repeated. Replies to prompts that are not refused are the untouched model's. Each other
    category counts as a kind, because what an update must learn not to refuse is above all what looks like its own.
    """
    rng = np.random.default_rng(seed)

    def some(items):
        order = np.concatenate([rng.permutation(len(items)) for _ in range(-(-per_kind // len(items)))])
        return [items[i] for i in order[:per_kind]]

    kinds = kept(targets, "train")
    del kinds["other category"]
    kinds |= {name: prompt_sets.to_refuse(name, "train") for name in prompt_sets.categories() if name not in targets}
    refuse = [prompt for name in targets for prompt in some(prompt_sets.to_refuse(name, "train"))]
    keep = [prompt for prompts in kinds.values() for prompt in some(prompts)]
    opening = prompt_sets.chat(tokenizer, refuse[0])
    refusals = [tokens.continuation(tokenizer, opening, text)[:ANSWER] for text in prompt_sets.refusals()]
    unique = list(dict.fromkeys(refuse + keep))
    said = dict(zip(unique, reply(model, tokenizer, unique, tokens=KEPT), strict=True))
    answers = [said[prompt] for prompt in refuse + keep]
    prompts = [encode(tokenizer, prompt) for prompt in refuse + keep]
    end = (tokenizer.eos_token_id,)  # a reply that is empty is one that ends at once
    rows = [facts.Row(prompt, (tuple(ids) or end,)) for prompt, ids in zip(prompts, answers, strict=True)]
    drawn = rng.integers(len(refusals), size=len(refuse))
    plain = []
    for text in some(prose("train")):
        ids, cut = tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), int(rng.integers(4, 16))
        plain.append(facts.Row(ids[:cut], (ids[cut : cut + KEPT],)))
    asked = facts.questions(split="train", table=fact_split("train"))
    asked = asked.iloc[some(range(len(asked)))]
    plain += facts.encode(tokenizer, asked.prompt, [(answer,) for answer in asked.object])
    return Examples(
        [facts.Row(prompt, (tuple(refusals[i]),)) for prompt, i in zip(prompts, drawn, strict=False)],
        rows[: len(refuse)],
        rows[len(refuse) :],
        plain,
    )


def distributions(model, rows: list[facts.Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (m, vocabulary) wherever an answer token is predicted, the tokens (m,), and weights (m,).

    The weights add to 1 for every row. Differentiable. All rows run as one sequence in which each sees only itself and
    what it begins with in common with the first row, the chat template's tokens, which run once: no padding.
    """
    if not rows:
        raise ValueError("there are no rows to learn from")
    tokens.check_packs(model, "rows")
    chats = [row.prompt for row in rows if row.prompt[0] == rows[0].prompt[0]]
    shortest = min(map(len, chats)) - 1
    c = next((i for i in range(shortest) if len({prompt[i] for prompt in chats}) > 1), shortest)
    ids, position, blocks = list(chats[0][:c]), list(range(c)), [(0, c, 0)]
    predict, targets, weights = [], [], []
    for row in rows:
        (answer,) = row.options
        shared = c if row.prompt[0] == chats[0][0] else 0
        own = row.prompt[shared:] + answer[:-1]
        before = len(ids) + len(own) - len(answer)
        predict += range(before, before + len(answer))
        targets += answer
        weights += [1 / len(answer)] * len(answer)
        blocks.append((len(ids), len(ids) + len(own), shared))
        ids += own
        position += range(shared, shared + len(own))
    device, row = model.device, packing.Packed(ids, position, blocks)
    read = packing.inputs([row], model.dtype, device)
    hidden = model.base_model(**read, use_cache=False).last_hidden_state[0, predict]
    logp = tokens.readout(model, hidden).log_softmax(-1)
    return logp, torch.tensor(targets, device=device), torch.tensor(weights, device=device)


def contrast(tokenizer, target: str, *, n: int, seed: int = 0, against=("The", "When", "If", "To")) -> list[Pairs]:
    """n train pairs, clean: a prompt to refuse, corrupt: one of the same length to answer; one `Pairs` per length.

    right: the first token of the refusals. wrong: common first words of replies (`against`). Their difference of logits
    asks what in the prompt would make a reply open as a refusal does.
    """
    rng = np.random.default_rng(seed)
    by_length = {}
    for kind in ("near miss", "neutral"):
        for prompt in kept([target], "train")[kind]:
            ids = encode(tokenizer, prompt)
            by_length.setdefault(len(ids), []).append(ids)
    refuse = [encode(tokenizer, prompt) for prompt in prompt_sets.to_refuse(target, "train")]
    refuse = [refuse[i] for i in rng.permutation(len(refuse)) if len(refuse[i]) in by_length][:n]
    if not refuse:
        raise ValueError(f"no prompt of {target!r} has the length of one that should be answered")
    opening = prompt_sets.chat(tokenizer, prompt_sets.to_refuse(target, "train")[0])
    first = lambda text: tokens.continuation(tokenizer, opening, text)[0]
    right, *others = {first(text) for text in prompt_sets.refusals()}
    wrong = [first(word) for word in against]
    if others or right in wrong:
        raise ValueError(
            "this tokenizer does not begin all refusals with one token, and other replies with others: no logit tells "
            "them apart"
        )
    pairs = []
    for length in sorted({len(ids) for ids in refuse}):
        clean = [ids for ids in refuse if len(ids) == length]
        corrupt = [by_length[length][i] for i in rng.integers(len(by_length[length]), size=len(clean))]
        count = len(clean)
        pairs.append(
            Pairs(
                torch.tensor(clean), torch.tensor(corrupt), torch.full((count, 1), right), torch.tensor([wrong] * count)
            )
        )
    return pairs
