"""One grammar for numbers in text: a number is read whole, or not at all.

    numbers.find("#### $1,234.50 in all", 4)     # Found(start=5, end=14, value=1234.5)
    numbers.read("1 1/2")                        # 1.5
    numbers.read("3-4")                          # None: a range is no number

Read are signs (hyphen, minus, dashes), currency before or after, thousands set apart by commas, apostrophes or thin
spaces, in threes or as in 1,00,000, decimals, exponents, fractions and mixed numbers, and their LaTeX; a unit or a
percent sign may follow and changes nothing. Refused is whatever holds a number but means another, or could: 12:30, 3-4,
1.234.567,8, 1,5 (a decimal comma, or two numbers), 1, 2 (a list), 3 million, 2^10, x5, 1/0, digits of other scripts; a
number that is joined to another (42 + 7, 5 out of 6, 5 feet 3), and one with a sign before what is not it (-≈5).
"""

import math
import re
import unicodedata
from typing import NamedTuple

SIGNS = "-+−–—‐‑‒﹣－＋"
THIN = "\u00a0\u2007\u2009\u202f"  # spaces that set groups of digits apart and never two numbers
UNSEEN = "\u200b\u2060\ufeff"
MARK = re.compile(r"\{,\}|,\\!|\\[,;: ]|[,'’" + THIN + "]")  # what may stand between groups of digits
PLAIN = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+−]?\d+)?", re.ASCII)
GROUPED = re.compile(
    rf"[1-9]\d{{0,2}}(?P<mark>{MARK.pattern})\d{{3}}(?:(?P=mark)\d{{3}})*(?!\d)(?:\.\d+)?"
    r"|[1-9]\d?(?:,\d\d)+,\d{3}(?!\d)(?:\.\d+)?",
    re.ASCII,
)
LATEX = re.compile(r"\\[dt]?frac(?:\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}|(\d)(\d))", re.ASCII)
FRACTION = re.compile(r"[ \t]*[/⁄∕][ \t]*", re.ASCII)
MIXED = re.compile(r"[ " + THIN + r"](\d+)[/⁄∕](\d+)", re.ASCII)
POWER = re.compile(
    r"[ \t]*(?:[x×*·]|\\times|\\cdot)[ \t]*10[ \t]*(?:\^|\*\*)[ \t]*(?:\{\s*([-+−]?\d+)\s*\}|([-+−]?\d+))", re.ASCII
)
CURRENCY = r"(?:\\?[$€£¥₹₽₩]|\b(?:US|CA|AU|NZ|HK|S|A|C)\$|\b(?:USD|EUR|GBP|INR|JPY|CHF|CAD|AUD|Rs\.?)(?=[ \t\d.]))"
BEFORE = re.compile(
    rf"(?:(?P<a>[{re.escape(SIGNS)}])(?P<gap>[ \t{THIN}{UNSEEN}]*))?(?:{CURRENCY}[ \t]*)?(?P<b>[{re.escape(SIGNS)}])?$"
)
# What follows a number, and makes another of it: words of size, groups after a plain space, ranges, lists, halves.
SIZE = re.compile(
    rf"[ \t{THIN}-]*(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore|mill?ions|mln|bn|mn)s?\b"
    r"|[kmbte]\b(?!['’])"
    r"|[ \t]+and[ \t]+(?:a|an|one|two|three|\d+)[ \t/-]*(?:half|halves|third|quarter|fourth|fifth|\d)"
    rf"|[ \t]*[–—−‒‐‑±][ \t]*{CURRENCY}?[ \t]*\d"
    rf"|[ \t]+to[ \t]+{CURRENCY}?[ \t]*\d"
    rf"|(?:[ \t]*[,;](?:[ \t]*(?:and|or)\b)?|[ \t]+(?:and|or|&))[ \t]+[{re.escape(SIGNS)}]?{CURRENCY}?[ \t]*\d"
    rf"|[{THIN}]\d| \d{{3}}(?!\d)|[ \t]+,\d|[ \t]*[¼-¾⅐-⅞]"
    r"|[ \t]*(?:mio|mrd|bil|tril|crs?|tn|trn|gross|score)\b|[ \t]+(?-i:[kKMBT])\b(?!['’])|[ \t]*[万萬千億亿兆만억조]"
    r"|[ \t]*(?:\\pi|π|pi\b|\\?sqrt|√)|[ij]\b(?!['’])",
    re.IGNORECASE | re.ASCII,
)  # fmt: skip
# An operator or a word that takes a second number: the first one is a part of what is said.
UNIT = (
    r"(?:dollars?|euros?|pounds?|rupees?|hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|yards?"
    r"|miles?|lbs?|kg|km|kilometers?|kilograms?|meters?|metres?|m)\b"
)
OPERAND = rf"[ \t]*[(\[{{]*[{re.escape(SIGNS)}]?{CURRENCY}?(?:\d|\\[dt]?frac)"
JOINED = re.compile(
    rf"(?:[}}\])$]+[ \t]*(?:\*\*|[-+*/×÷·∗∙^]|\\times|\\cdot|\\div)"
    rf"|[ \t]*(?:\*\*|\+/-|[-+*/×÷·∗∙^<>≈≠±~:|]|\\times|\\cdot|\\div|\\pm|\\over\b)"
    r"|[ \t]+(?:x|plus|minus|times|over|of|by|mod|through|thru|until|vs\.?|versus|remainder|r)(?=[ \t\d])"
    r"|[ \t]+(?:out of|divided by|multiplied by|plus or minus|(?:more|less|fewer) than)(?=[ \t])"
    rf"|[ \t]*{UNIT},?(?:[ \t]+and)?(?=[ \t])"
    rf"){OPERAND}"
    r"|(?:[ \t]*[,;]|[ \t]+(?:and|or))[ \t]+[a-z]\w?[ \t]*=|[ \t]?[a-z]\w?[ \t]*=(?!=)",
    re.IGNORECASE | re.ASCII,
)
HIDDEN_SIGN = re.compile(  # a sign before what is neither it nor the number: bold type, brackets, LaTeX, tags, ≈, ₪
    rf"[{re.escape(SIGNS)}](?:[ \t{THIN}{UNSEEN}]|<\w+>|\\[a-z]+|\\[,;:! ]|(?![>{re.escape(SIGNS)}])[^\w\s.])+$"
)
ENDS = re.compile(r"(?<!\{,)[}\]\"”]|</|<\||<<")  # where what hangs on to a number is something else again
REACH = 40  # characters before a number that can change it
EXPRESSION = re.compile(
    r"\\(?:sqrt|[a-z]*frac|over(?:line|set)|bar|binom|log|ln|pi)|[/^_×÷·√∛±]$"
    r"|(?:[≤≥≠]|[<>!]=|\\[gl]eq?|\\neq?)\s*$|(?:minus|negative)[ \t]+$",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """Where a number stands in a text, sign and currency included, and its value; None where it cannot be read."""

    start: int
    end: int
    value: float | None


def find(text: str, start: int = 0) -> Found | None:
    """The first number from `start` on; None where there is no digit."""
    digit = next((i for i in range(start, len(text)) if unicodedata.category(text[i])[0] == "N"), None)
    if digit is None:
        return None
    latex = re.compile(r"\\[dt]?frac[{ ]*[-+−]?$").search(text, max(start, digit - REACH), digit)
    if latex and LATEX.match(text, latex.start()):
        digit = latex.start()
    elif digit > start and text[digit - 1] == "." and not re.search(r"[\w.]$", text[start : digit - 1]):
        digit -= 1
    body = _body(text, digit)
    begin, sign = _before(text, start, digit)
    tail = re.compile(r"\S*").match(text, digit if body is None else body[0])
    if body is None or sign is None:
        return Found(begin, tail.end(), None)
    end, value = body
    if not (math.isfinite(value) and _alone(text, begin, digit, end)):
        return Found(begin, max(end, tail.end()), None)
    return Found(begin, end, sign * value)


def findall(text: str) -> list[Found]:
    """All numbers of a text, readable or not."""
    found, at = [], 0
    while (number := find(text, at)) is not None:
        found.append(number)
        at = max(number.end, at + 1)
    return found


def read(text: str) -> float | None:
    """The value of a text that is a number, with currency or a unit at most; None for anything else."""
    found = findall(text)
    return found[0].value if len(found) == 1 else None


def _body(text: str, at: int) -> tuple[int, float] | None:
    """(end, value) of an unsigned number at a place: digits, fraction, mixed number, power of ten."""
    if latex := LATEX.match(text, at):
        return _over(latex.end(), *(part for part in latex.groups() if part is not None))
    unit = digits(text, at)
    if unit is None:
        return None
    end, value = unit
    whole = float(value).is_integer() and "." not in text[at:end]
    if whole and (latex := LATEX.match(text, re.compile(" ?").match(text, end).end())):
        part = _over(latex.end(), *(part for part in latex.groups() if part is not None))
        return part and (part[0], value + part[1])
    if whole and (mixed := MIXED.match(text, end)):
        part = _over(mixed.end(), *mixed.groups())
        return part and (part[0], value + part[1])
    if power := POWER.match(text, end):
        exponent = int((power[1] or power[2]).replace("−", "-"))
        return (power.end(), float(f"{value!r}e{exponent}")) if "e" not in repr(value) else None
    if (over := FRACTION.match(text, end)) and over.end() < len(text) and text[over.end()].isdigit():
        below = digits(text, over.end())
        return (below[0], value / below[1]) if below and below[1] else None
    return end, value


def digits(text: str, at: int) -> tuple[int, float] | None:
    """(end, value) of the unsigned digits at a place, with their groups, decimals and exponent; None where they do not
    end there, as in 1,00."""
    if grouped := GROUPED.match(text, at):
        return grouped.end(), float(MARK.sub("", grouped[0]))
    plain = PLAIN.match(text, at)
    if plain is None or re.compile(rf"(?:\.|{MARK.pattern})?\d").match(text, plain.end()):
        return None
    value = float(plain[0].replace("−", "-"))
    if not value and re.search("[1-9]", re.split("[eE]", plain[0])[0]):
        return None  # too small to be told from 0
    return plain.end(), value


def _over(end: int, above: str, below: str) -> tuple[int, float] | None:
    """(end, value) of a fraction from the texts above and below its line."""
    a, b = read(above), read(below)
    return None if a is None or not b else (end, a / b)


def _before(text: str, start: int, digit: int) -> tuple[int, float | None]:
    """Where a number begins whose digits begin at `digit`, and its sign; None where what stands before changes it."""
    ahead = text[max(start, digit - REACH) : digit]
    found = BEFORE.search(ahead)
    begin, signs = digit - len(ahead) + found.start(), [s for s in (found["a"], found["b"]) if s]
    before = ahead[: found.start()]
    if found["gap"] and found["a"] in "+＋":  # no sign: it changes nothing
        begin, signs, before = begin + 1 + len(found["gap"]), signs[1:], "+"
    word = before[-1:].isalpha()
    name = word and not before[-2:-1].isalpha()  # x5; but "is5" is a space forgotten
    if found["a"] and not found["gap"] and word and text[begin - 2 : begin - 1] != "\\":
        return begin, None  # covid-19
    if found["a"] and found["gap"] and before.rstrip()[-1:].isalnum():
        return begin, None  # "the answer - 5": a sign or a pause
    if len(signs) > 1 or (name and not found[0]) or EXPRESSION.search(before.split("\n")[-1]):
        return begin, None
    if found["a"] is None and re.search(rf"[{re.escape(SIGNS)}]\s*[^\W\d]{{1,3}}[.$]?\s*$", before):
        return begin, None  # a sign before a currency that is not known
    if found["a"] is None and (
        HIDDEN_SIGN.search(before) or re.search(rf"[{re.escape(SIGNS)}][ \t]*\\?[a-z]*[*_(\[{{]+$", before)
    ):
        return begin, None
    return begin, -1.0 if signs and signs[0] not in "+＋" else 1.0


def _alone(text: str, begin: int, digit: int, end: int) -> bool:
    """Whether nothing hangs on to the number that makes it part of something else."""
    if SIZE.match(text, end) or JOINED.match(text, end) or re.compile(r"\{,\}\d").match(text, end):
        return False
    if text[begin - 1 : begin] == "(" and text[end : end + 1] == ")":
        return False  # (3) is -3 in accounts
    tail = ENDS.split(re.compile(r"\S*").match(text, end)[0], maxsplit=1)[0]
    if re.fullmatch(r"[-−–—‐][.,;:!?)]*", tail):
        return False  # 5- is -5 in accounts
    if re.match(r"!(?!\s|$)|\\pi|\\sqrt|[π√^‰](?!\\circ)", tail):
        return False
    return not any(unicodedata.category(letter)[0] in "NM" for letter in tail)  # 5² is not 5, and 0.3̅ not 0.3
