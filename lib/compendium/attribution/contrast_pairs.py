"""Contrast pairs for four behaviours a small language model has, each with a known answer token.

| task | clean | corrupt | right : wrong next token |
|---|---|---|---|
| country_capital | The capital of France is | The capital of Japan is | Paris : Tokyo |
| agreement | The keys near the table | The key near the table | are, were : is, was |
| greater_than | The war lasted from the year 1743 to the year 17 | ... the year 1703 ... | digits above 4 : below 4 |
| indirect_object | When Mary and John went to the shop, John gave a book to | ... Paul gave a book to | Mary : John |

Greater-than and indirect object follow Hanna et al. 2023 and Wang et al. 2023 in kind; the wordings are ours.
This tokenizer cuts numbers into digits, so greater-than asks for the tens digit. Every prompt begins with the
tokenizer's beginning-of-sequence token, and clean and corrupt prompts have the same number of tokens. The two splits
share no countries, nouns or names, and no events. Answers are the tokens that follow the prompt they answer, so nothing
is assumed about how a tokenizer writes a space; one that leaves a task too few words of one token is refused.
"""

import numpy as np
import torch

from compendium import facts, tokens
from compendium.attribution.decoder import Decoder, Pairs, logit_difference, measure

NOUNS = (
    "key dog boy girl car book house tree bird cat teacher student doctor farmer worker singer painter driver author "
    "lawyer nurse king queen soldier engineer scientist player artist writer manager officer child parent friend lion "
    "horse boat letter picture flower window door table chair road river mountain city village school ship plane train"
).split()


PLACES = ("table", "house", "river", "road", "wall", "garden", "school", "station", "bridge", "church")


NAMES = (
    "Mary John Tom James Anna Paul Peter Mark Sarah David Emma Jack Alice Robert Kate Henry Laura George Susan Michael "
    "Lisa Daniel Maria Simon Rachel Adam Helen Frank Julia Martin Lucy Andrew Jane Charles Amy Richard Ruth Edward"
).split()


SHOPS = ("shop", "park", "school", "station", "office", "library", "market", "beach")


GIFTS = ("book", "letter", "ring", "drink", "ball", "map", "flower", "picture")


EVENTS = (
    "war trip siege famine drought strike reign project voyage campaign study debate dispute expedition revolt trial "
    "journey festival plague alliance conflict dynasty program search"
).split()


SPLITS = ("train", "heldout")


def half(items, split: str) -> list:
    """Every other item for training, the rest held out. Raises ValueError for another split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    return list(items)[SPLITS.index(split) :: 2]


def country_capital(tokenizer, split, rng, n):
    table = facts.load().query("relation == 'country_capital'")
    table = table[table.subject.isin(single(tokenizer, table.subject))]
    rows = enough(half(zip(table.subject, table.object, strict=True), split), 2, "countries")
    for _ in range(n):
        (country, capital), (other, other_capital) = (rows[i] for i in rng.choice(len(rows), 2, replace=False))
        clean, corrupt = (f"The capital of {place} is" for place in (country, other))
        yield clean, corrupt, [f" {capital}"], [f" {other_capital}"]


def agreement(tokenizer, split, rng, n):
    both = set(single(tokenizer, [*NOUNS, *(f"{noun}s" for noun in NOUNS)]))
    nouns = enough(half([noun for noun in NOUNS if {noun, f"{noun}s"} <= both], split), 1, "nouns")
    for _ in range(n):
        noun, place, plural = rng.choice(nouns), rng.choice(PLACES), bool(rng.integers(2))
        forms = [f"The {noun} near the {place}", f"The {noun}s near the {place}"]
        verbs = [[" is", " was"], [" are", " were"]]
        yield forms[plural], forms[not plural], verbs[plural], verbs[not plural]


def greater_than(tokenizer, split, rng, n):
    events = enough(half(single(tokenizer, EVENTS), split), 1, "events")
    for _ in range(n):
        event, century, tens, unit = rng.choice(events), rng.integers(13, 19), rng.integers(2, 8), rng.integers(1, 10)
        clean, corrupt = (
            f"The {event} lasted from the year {century}{digit}{unit} to the year {century}" for digit in (tens, 0)
        )
        yield clean, corrupt, [str(digit) for digit in range(tens + 1, 10)], [str(digit) for digit in range(tens)]


def indirect_object(tokenizer, split, rng, n):
    names = enough(half(single(tokenizer, NAMES), split), 3, "names")
    for _ in range(n):
        a, b, c = rng.choice(names, 3, replace=False)
        first, second = (a, b) if rng.integers(2) else (b, a)
        start, end = f"When {first} and {second} went to the {rng.choice(SHOPS)},", f"gave a {rng.choice(GIFTS)} to"
        yield f"{start} {b} {end}", f"{start} {c} {end}", [f" {a}"], [f" {b}"]


TASKS = {task.__name__: task for task in (country_capital, agreement, greater_than, indirect_object)}


def single(tokenizer, words) -> list[str]:
    """The words that are one token inside a sentence, in their order."""
    words = list(words)
    found = tokens.continuations(tokenizer, "The", [f" {word}" for word in words])
    return [word for word, ids in zip(words, found, strict=True) if ids is not None and len(ids) == 1]


def enough(words: list, least: int, kind: str) -> list:
    """The words, if there are `least`. Raises ValueError."""
    if len(words) < least:
        raise ValueError(
            f"this tokenizer has {len(words)} {kind} of one token each in this split, the task needs {least}: choose "
            "another task, or a model with a larger vocabulary"
        )
    return words


def _encoded(tokenizer, clean: str, corrupt: str, answers: list[str]) -> tuple[tuple, list[int] | None]:
    """Token ids of both prompts, and the first token of each answer after them; None where an answer begins otherwise
    after one prompt than after the other, or changes the prompt's last token."""
    texts = [clean, corrupt, *(prompt + answer for prompt in (clean, corrupt) for answer in answers)]
    one, other, *whole = map(tuple, tokenizer(texts, add_special_tokens=False)["input_ids"])
    pairs = list(zip([one] * len(answers) + [other] * len(answers), whole, strict=True))
    if any(ids[: len(prompt)] != prompt or len(ids) == len(prompt) for prompt, ids in pairs):
        return (one, other), None
    first = [ids[len(prompt)] for prompt, ids in pairs]
    return (one, other), first[: len(answers)] if first[: len(answers)] == first[len(answers) :] else None


def pairs(task: str, tokenizer, *, split: str = "train", n: int = 100, seed: int = 0) -> Pairs:
    """Up to n different contrast pairs of one length. Raises ValueError for an unknown task or split, and where the
    tokenizer leaves no pair.

    Draws are made by a generator that depends on the seed alone; draws that repeat, differ in length, or whose right
    and wrong answers begin with the same token are left out, and of several lengths the commonest is kept.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    half((), split)
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    start = (tokenizer.bos_token_id,) if tokenizer.bos_token_id is not None else ()
    found = {}
    for clean, corrupt, right, wrong in TASKS[task](tokenizer, split, rng, 6 * n):
        prompts, first = _encoded(tokenizer, clean, corrupt, [*right, *wrong])
        if first is None:
            continue
        prompts = tuple(start + prompt for prompt in prompts)
        answers = [sorted(set(part)) for part in (first[: len(right)], first[len(right) :])]
        if len(prompts[0]) == len(prompts[1]) and prompts[0] != prompts[1] and not set(answers[0]) & set(answers[1]):
            found.setdefault(prompts, answers)
    if not found:
        raise ValueError(
            f"{task}: for this tokenizer no pair of prompts has one length and answers that begin apart (n = {n}): "
            "choose another task or model"
        )
    lengths = [len(clean) for clean, _ in found]
    common = max(sorted(set(lengths)), key=lengths.count)
    kept = [(prompts, answers) for prompts, answers in found.items() if len(prompts[0]) == common][:n]

    def padded(which: int) -> torch.Tensor:
        width = max(len(answers[which]) for _, answers in kept)
        return torch.tensor([answers[which] + [-1] * (width - len(answers[which])) for _, answers in kept])

    clean, corrupt = (torch.tensor([prompts[i] for prompts, _ in kept]) for i in (0, 1))
    return Pairs(clean, corrupt, padded(0), padded(1))


@torch.no_grad()
def screen(decoder: Decoder, pairs: Pairs, metric=logit_difference) -> Pairs:
    """The pairs the model gets right: metric above zero on the clean prompt, and higher than on the corrupt one."""
    kept = []
    for chunk in decoder.chunks(pairs, whole=True):
        clean, corrupt = (
            measure(metric, decoder.logits(decoder.forward(decoder.embed(tokens))), chunk)
            for tokens in (chunk.clean, chunk.corrupt)
        )
        kept.append((clean > 0) & (clean > corrupt))
    return pairs[torch.cat(kept).cpu()]
