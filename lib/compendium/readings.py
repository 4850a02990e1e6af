"""Numbers in prose, filled from the tables that hold them.

A markdown cell tagged `reading` names its numbers instead of typing them:

    {accuracy:.0%}                                  metrics.json
    {nf4-recovers:.2f}  {nf4-recovers.interval:.2f}  {nf4-recovers.n}   claims.json: value, low, high, n, unit, verdict
    {gaps[method=NPO; format=nf4].gap:+.0p}         the one row of gaps.csv with these values
    {max gaps[format=nf4].gap:.2f}                  also min, mean, median, sum, count, over the rows
    {abs mansu-erases:.2f}                          without its sign, where words say which way
    {02_unlearning/05_mansu#mansu-forgets:.0%}      another notebook's

After the colon stands a format of Python's, or one of ours: `.0p` counts in hundredths, for "39 points". Minus signs
come out as in print. `fill` raises ReadingError where nothing, or more than one thing, answers to a name.
"""

import json
import re
from pathlib import Path

import pandas as pd

from compendium.paths import FIGURES

REFERENCE = re.compile(
    r"\{(?:(?P<over>abs|max|min|mean|median|sum|count) )?(?:(?P<notebook>[\w/]+)#)?(?P<name>[a-z][\w-]*)"
    r"(?:\[(?P<where>[^\]{}]*)\])?(?:\.(?P<field>[^:{}\[\]]+))?(?::(?P<spec>[^{}:]+))?\}"
)
TYPED = re.compile(r"\d")
# What may be typed: code, links and their targets, equations, headings' and lists' numbers, names with a digit in them.
NAMES = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)|<[^>]+>|https?://\S+|^#+ [\d.]+|^\d+\. |\*\*\d+\.\*\*"
    r"|\b(?:arXiv:? ?)?\d{4}\.\d{4,5}\b|\b(?:19|20)\d\d\b|\b\w*[A-Za-z_]\w*\d\w*(?:[.-]\d+\w*)*\b"
    r"|\b[A-Z]\w*-\d\w*|\b\d+-?bit\b|\b\d+ bits?\b"
    r"|\b[Ss]ections? \d+(?: and \d+)?\b|\b\d\d_\w+|\b\d+B\b|\bL\d\b|\b95 %",
    re.MULTILINE | re.DOTALL,
)


class ReadingError(ValueError):
    """A reference that no table, metric or claim answers to, or a number that was typed; the message says which."""


def fill(text: str, folder: Path, figures: Path = FIGURES) -> str:
    """`text` with every reference replaced by its number. folder: of the results; figures: of all notebooks' results.

    Raises ReadingError.
    """

    def told(found: re.Match) -> str:
        number = value(found, folder, figures)
        return shown(abs(number) if found["over"] == "abs" else number, found["spec"] or "")

    return REFERENCE.sub(told, text)


def typed(text: str) -> list[str]:
    """The numbers in `text` that stand there as digits, each with the words around it."""
    bare = NAMES.sub(lambda found: "\x00" * len(found[0]), REFERENCE.sub("", text))
    rest = [found.start() for found in TYPED.finditer(bare)]
    return [bare[max(0, i - 20) : i + 20].replace("\x00", "·") for i in rest]


def value(found: re.Match, folder: Path, figures: Path = FIGURES):
    """What one reference stands for: a number, a text, or the two ends of an interval."""
    folder = Path(figures) / found["notebook"] if found["notebook"] else Path(folder)
    if found["where"] is not None:
        return _cell(found, folder)
    name, field = found["name"], found["field"]
    metrics = _json(folder / "metrics.json", {})
    if name in metrics and field is None:
        return metrics[name]
    claims = {claim["id"]: claim for claim in _json(folder / "claims.json", [])}
    if name not in claims:
        raise ReadingError(f"{found[0]}: no metric and no claim in {folder.name} is called {name!r}")
    claim = claims[name]
    if field == "interval":
        return claim["low"], claim["high"]
    if (field or "value") not in claim:
        raise ReadingError(f"{found[0]}: a claim has no {field!r}")
    return claim[field or "value"]


def _cell(found: re.Match, folder: Path):
    path = folder / f"{found['name']}.csv"
    if not path.is_file():
        raise ReadingError(f"{found[0]}: there is no table {found['name']}.csv in {folder.name}")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    for part in filter(None, (part.strip() for part in found["where"].split(";"))):
        column, _, wanted = (word.strip() for word in part.partition("="))
        if column not in table:
            raise ReadingError(f"{found[0]}: {path.name} has no column {column!r}")
        table = table[[_same(cell, wanted) for cell in table[column]]]
    column = found["field"]
    if column not in table and found["over"] != "count":
        raise ReadingError(f"{found[0]}: {path.name} has no column {column!r}")
    if found["over"] == "count":
        return len(table)
    if found["over"] not in (None, "abs"):
        return getattr(table[column], found["over"])()
    if len(table) != 1:
        raise ReadingError(f"{found[0]}: {len(table)} rows of {path.name} answer to that, not one")
    return table[column].iloc[0]


def _same(cell, wanted: str) -> bool:
    if str(cell) == wanted:
        return True
    try:
        return float(cell) == float(wanted)
    except (TypeError, ValueError):
        return False


def _json(path: Path, otherwise):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise


def shown(value, spec: str = "") -> str:
    """A number as prose has it, by a format; the ends of an interval in brackets."""
    if isinstance(value, tuple):
        return f"[{shown(value[0], spec)}, {shown(value[1], spec)}]"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str) or value is None:
        return str(value)
    if spec.endswith("p"):
        value, spec = 100 * value, f"{spec[:-1]}f"
    text = format(value, spec or (".3g" if isinstance(value, float) else ""))
    if re.fullmatch(r"[+-]0?\.?0*%?", text):  # a zero has no sign
        text = text[1:]
    return text.replace("-", "−") if re.match(r"-[\d.]", text) else text
