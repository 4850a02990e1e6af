"""Problems with answers that can be checked: arithmetic stories made here, and files in GSM8K and MBPP format.

    tom has 42 apples. then tom buys 7 apples. later tom drops 3. how many apples does tom have now?
    we read the story once more. 42 + 7 = 49. let us go on step by step. 49 - 3 = 46. #### 46

The solutions' chains of thought mix *calculation* with *filler*: sentences that say nothing about the answer, at random
places. A method that finds out which tokens matter can be told from one that does not. `tokenizer` has the stories'
words and single digits, 84 tokens, so a policy of a million parameters can learn them.

Splits of `problems`: "train"; "validation", other stories of the same kinds; "operands", which begin with a number from
30 to 39, as no other split does; "templates", whose every step joins a verb with a sentence frame that training saw
apart but never together. Subtractions stay above zero and results below 100.

Answers are found by `locate`, in model output and reference solutions alike, and compared as numbers.
"""

import re
import zlib
from dataclasses import dataclass

import numpy as np

from compendium.policy_opt import numbers

MARKERS = "final answer", "####", "\\boxed{"  # in order of priority


@dataclass(frozen=True)
class Located:
    """Character positions: of the marker, and of the number after it (equal where there is none that can be read)."""

    marker: int
    start: int
    end: int
    value: float | None = None


def locate(text: str) -> Located | None:
    """The first answer marker and the first number after it, if `numbers` can read it; None without a marker."""
    lower = text.lower() if len(text.lower()) == len(text) else text  # few letters have a longer small form
    for marker in MARKERS:
        at = lower.find(marker)
        if at >= 0:
            found = numbers.find(text, at + len(marker))
            if found is None or found.value is None:
                return Located(at, at + len(marker), at + len(marker))
            return Located(at, *found)
    return None


def extract(text: str, *, strict: bool = True) -> float | None:
    """The answer in a completion: the number after the marker; with strict=False, without a marker, the last number.
    None where there is none, and where it cannot be read whole."""
    found = locate(text)
    if found or strict:
        return found and found.value
    given = numbers.findall(text)
    return given[-1].value if given else None


def correct(text: str, answer: float, *, strict: bool = True) -> bool:
    """Whether a completion's answer is `answer`, to nine digits: 10,001 is not 10,000."""
    found = extract(text, strict=strict)
    return found is not None and abs(found - answer) <= 1e-9 * max(1.0, abs(answer))


NAMES = "tom", "ann", "sam"


ITEMS = "apples", "coins", "books", "cards"


OPENINGS = "{name} has {n} {item}.", "{name} starts with {n} {item}."


VERBS = {"+": ("buys", "finds", "gets"), "-": ("loses", "sells", "drops")}


FRAMES = "then {name} {verb} {n} {item}.", "later {name} {verb} {n}.", "the next day {name} {verb} {n} more {item}."


DOUBLING = "after that {name} doubles the {item}."


QUESTION = "how many {item} does {name} have now?"


FILLER = (
    "let us go on step by step.",
    "we read the story once more.",
    "this part is not so hard to work out.",
    "now we look at what comes next.",
)


SPLITS = "train", "validation", "operands", "templates"


STARTS, HELD_OUT = range(10, 60), range(30, 40)


OPERANDS = range(2, 10)


LARGEST = 99


@dataclass(frozen=True)
class Problem:
    """A question, a solution that ends in "#### answer", and the answer. Solutions of stories begin with a space, so
    that question + solution is the text to learn."""

    question: str
    solution: str
    answer: float


def problems(
    n: int,
    split: str = "train",
    *,
    seed: int = 0,
    steps: tuple[int, ...] = (2, 3),
    filler: float = 0.5,
    hasty: float = 0.0,
) -> list[Problem]:
    """`n` different stories.

    steps: how many calculations a story may take. filler: probability of a filler sentence before each calculation.
    hasty: probability that the solution of a story longer than the shortest stops one calculation too early and so is
    wrong, as demonstrations can be; `answer` is right all the same. Raises ValueError for an unknown split or when
    there are fewer than `n` stories.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    found = {}
    for _ in range(20 * n):
        if len(found) == n:
            break
        length = int(rng.choice(steps))
        early = hasty > 0 and length > min(steps) and rng.random() < hasty
        problem = _story(rng, split, length, filler, length - early)
        # Training and validation stories are told apart by a hash, so that neither depends on the other's seed or size.
        if split not in ("train", "validation") or (split == "validation") == _is_validation(problem.question):
            found.setdefault(problem.question, problem)
    if len(found) < n:
        raise ValueError(f"there are fewer than {n} different stories of {steps} steps: found {len(found)}")
    return list(found.values())


def _is_validation(question: str) -> bool:
    return zlib.crc32(question.encode()) % 8 == 0


def _story(rng, split: str, steps: int, filler: float, solved: int) -> Problem:
    """A story of `steps` calculations whose solution makes the first `solved` of them."""
    pick = lambda options: options[int(rng.integers(len(options)))]
    words = dict(name=pick(NAMES), item=pick(ITEMS))
    starts = [s for s in STARTS if (s in HELD_OUT) == (split == "operands")]
    total = said = pick(starts)
    story, thought = [pick(OPENINGS).format(n=total, **words)], []
    for step in range(steps):
        symbol = pick("++--*")
        operand = 2 if symbol == "*" else pick(OPERANDS)
        result = {"+": total + operand, "-": total - operand, "*": total * 2}[symbol]
        if not 0 < result <= LARGEST or (symbol == "*" and split == "templates"):
            symbol = "+" if total < operand + 1 else "-"
            operand = pick(OPERANDS) if symbol == "+" else pick(range(2, min(10, total)))
            result = total + operand if symbol == "+" else total - operand
        story.append(_sentence(pick, symbol, split).format(n=operand, **words))
        if rng.random() < filler and step < solved:
            thought.append(pick(FILLER))
        if step < solved:
            thought.append(f"{total} {symbol} {operand} = {result}.")
            said = result
        total = result
    question = " ".join([*story, QUESTION.format(**words)])
    return Problem(question, " " + " ".join([*thought, f"#### {said}"]), float(total))


def _sentence(pick, symbol: str, split: str) -> str:
    """A step's sentence; verb i never meets frame i but in the split "templates"."""
    if symbol == "*":
        return DOUBLING
    verb = pick(range(len(VERBS[symbol])))
    frame = pick([f for f in range(len(FRAMES)) if (f == verb) == (split == "templates")])
    return FRAMES[frame].replace("{verb}", VERBS[symbol][verb])


TOKEN = r" ?[a-z]+| ?#+| ?\d| ?[^\sa-z\d#]"  # a word with the space before it; digits one by one


SPECIAL = "<pad>", "<eos>", "<unk>"


def tokenizer():
    """A fast tokenizer of the stories' vocabulary; decoding gives the text back, after a space that it begins with."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = " ".join([*NAMES, *ITEMS, *OPENINGS, *sum(VERBS.values(), ()), *FRAMES, DOUBLING, QUESTION, *FILLER])
    pieces = set(re.findall(TOKEN, " " + re.sub(r"\{\w+\}", "", words)))
    pieces |= {f"{space}{digit}" for space in ("", " ") for digit in range(10)} | {" +", " -", " *", " =", " ####"}
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pieces)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(Regex("^ ?"), " ")
    made.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
