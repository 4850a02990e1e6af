"""Where the calculations and the sentences of an answer lie, as spans of its tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compendium.policy_opt import numbers, word_problems

LOW, HIGH, ANSWER, BASE = 0.5, 2.0, 1.5, 0.2


_GAP = r"(?:[ \t~]|\\[,;:! ])*"


_OPEN, _CLOSE = rf"(?:(?:\\left)?[(\[{{]{_GAP})*+", rf"(?:{_GAP}(?:\\right)?[)\]}}])*"


_WORDS = r"\b(?:x|X|times|plus|minus|of|multiplied by|divided by)\b"


_OPERATOR = rf"\*\*|[-+−–*×·÷/^]|\\(?:times|cdot|div)|{_WORDS}"


_EQUAL_WORDS = r"\b(?:is equal to|equals)\b"


_EQUALS = rf"=(?![=>])|≈|\\approx|{_EQUAL_WORDS}"


# Up to three words after a number, "hours per day", but no word that joins it to the next number.
_WORD = rf"(?!(?:{_WORDS}|{_EQUAL_WORDS}){_GAP}[-−+\\$.(\d])\b[A-Za-z]+(?:/[A-Za-z]+)?\b"


_UNIT = rf"(?:{_GAP}(?:\\(?:text|mathrm)\{{[^{{}}]*\}}|{_WORD})){{0,3}}"


_FRACTION = r"\\[dt]?frac\{[^{}=]*\d[^{}=]*\}\{[^{}=]*\d[^{}=]*\}"


# 1,234.5  1{,}234  1,00,000  1 234 (a thin space)  1e3  12  .5, whole: never from or to its middle.
_THIN = numbers.THIN


_INSIDE = rf"(?<!\d)(?<!\d[.,:'’_{_THIN}])(?<!\d\{{,\}})(?!(?<=\d )\d{{3}}(?!\d))"


_DIGITS = (
    rf"(?>(?:\d{{1,3}}(?:(?:,|\{{,\}}|['’{_THIN}])\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d\d)+,\d{{3}}(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    rf"(?>[eE][-+−]?\d+)?(?!\d|[.,:'’_{_THIN}]\d|\{{,\}}\d)"
)


_VALUE = rf"(?:[-−+–]{_GAP})?(?:\\?[$€£])?(?:<<[^<>\n]*>>)?{_INSIDE}(?:{_DIGITS})(?:{_GAP}\\?%)?"


_TERM = rf"{_OPEN}(?:{_FRACTION}|{_VALUE}){_UNIT}{_CLOSE}"


CALCULATION = re.compile(rf"{_TERM}(?:{_GAP}(?:(?P<operator>{_OPERATOR})|(?P<equals>{_EQUALS})){_GAP}{_TERM})+")


_END = re.compile(r".*[\d%)\]}>]", re.DOTALL)  # a calculation ends with its result, not with the unit after it

# To a full stop that ends a word, or the end of the line.
SENTENCE = re.compile(r"\S(?:[^.!?\n]|[.!?](?!\s|$))*[.!?]*")


def calculations(text: str) -> list[tuple[int, int]]:
    """(start, end) in characters of every written calculation: an operator and an equals sign between numbers."""
    found = []
    for match in CALCULATION.finditer(text):
        if match["equals"] and (match["operator"] or "frac{" in match[0]):
            found.append((match.start(), match.start() + _END.match(match[0]).end()))
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) in characters of every sentence, unfinished ones too."""
    return [match.span() for match in SENTENCE.finditer(text)]


@dataclass(frozen=True)
class Span:
    """Tokens start to end - 1 of a completion; kind is "calculation" or "sentence"."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Regions:
    """A completion of `length` tokens: reasoning before token `reasoning`, spans in it, and the answer's tokens,
    start to end - 1, whose log-probability is the score (None without a marker)."""

    length: int
    reasoning: int
    answer: tuple[int, int] | None
    spans: tuple[Span, ...]


def offsets(tokenizer, ids: Sequence[int]) -> tuple[str, list[int]]:
    """A completion's text and the character each token begins at, with the text's length at the end."""
    text = tokenizer.decode(ids)
    pieces = [tokenizer.decode([i]) for i in ids]
    if "".join(pieces) != text:  # tokens that change with their neighbours: the text so far tells where each begins
        ends = [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
        return text, [0, *np.minimum(np.maximum.accumulate(ends), len(text)).tolist()] if ids else [0]
    return text, np.cumsum([0, *map(len, pieces)]).tolist()


def regions(tokenizer, ids: Sequence[int], *, limit: int = 10, shortest: int = 5, longest: int = 50) -> Regions:
    """Find reasoning, spans and answer in a completion's tokens (unpadded, end of text included).

    limit: most spans. shortest: of a sentence or what calculations leave of it, tokens. longest: of any span, tokens.
    """
    ids = list(ids)
    text, begin = offsets(tokenizer, ids)

    def tokens(start: int, end: int) -> tuple[int, int]:
        """Tokens that hold any of the characters."""
        return int(np.searchsorted(begin, start, "right")) - 1, int(np.searchsorted(begin, end, "left"))

    located = word_problems.locate(text)
    if located is None:
        return Regions(len(ids), len(ids), None, ())
    reasoning, _ = tokens(located.marker, located.marker + 1)
    if located.end > located.start:
        start, end = tokens(located.start, located.end)
    else:
        start, end = tokens(located.start, len(text))[0], len(ids)
    start = max(start, reasoning + 1)  # the marker itself is not scored
    if start >= end:
        return Regions(len(ids), len(ids), None, ())
    answer = start, end

    free = np.arange(len(ids)) < reasoning  # no token belongs to two spans
    spans = []

    def take(start: int, end: int, kind: str) -> None:
        if end - start <= longest and len(spans) < limit:
            free[start:end] = False
            spans.append(Span(start, end, kind))

    for found in calculations(text):
        start, end = tokens(*found)
        if free[start:end].all():
            take(start, end, "calculation")
    for found in sentences(text):
        for start, end in _runs(free, *tokens(*found)):
            if end - start >= shortest:
                take(start, end, "sentence")
    return Regions(len(ids), reasoning, answer, tuple(sorted(spans, key=lambda span: span.start)))


def _runs(free: np.ndarray, start: int, end: int) -> list[tuple[int, int]]:
    """(start, end) of the stretches of True among free[start:end]."""
    index = np.flatnonzero(free[start:end]) + start
    parts = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
