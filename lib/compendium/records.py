"""Tables and JSON lines from outside, as their author meant them: trimmed, in one Unicode form, or refused in one line.

    records.table(path, ["relation", "subject"])      # a data frame of text cells, and the line each row began on
    records.lines(path)                               # [(line number, object)] of a JSON-lines file

Spaces around a cell, or a header, say nothing: "France", " France" and "France" with a non-breaking space are one
value, and so are the two ways of writing é. A byte-order mark and Windows line ends are taken off. Other encodings,
separators, and rows of another length than the header's are refused, naming the line.
"""

import csv
import io
import json
import unicodedata
from pathlib import Path

import pandas as pd

from compendium.paths import relative

# Spaces of no width, soft hyphens and marks of direction; joiners (U+200C, U+200D) stay, as they change letters.
DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff" + DIRECTION)
LINE = "line"  # the index of a table: where in the file each row begins


def clean(text: str) -> str:
    """Text in Unicode's composed form, without invisible characters and spaces around it, single spaces inside."""
    text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def _text(path) -> str:
    content = Path(path).read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{relative(path)} is not in UTF-8 but in UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{relative(path)}, line {number}: not in UTF-8: save the file as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{relative(path)} holds null characters: it is no text file")
    return text


def table(path, columns: list[str]) -> pd.DataFrame:
    """A CSV file's columns, all text, `clean`; the index, `LINE`, is the line on which each row ends.

    Blank lines are skipped, other columns dropped. Raises ValueError for a file without one of the columns, and naming
    the line of a row that is longer or shorter than the header.
    """
    shown = relative(path)
    reader = csv.reader(io.StringIO(_text(path), newline=""), skipinitialspace=True)
    rows, numbers, header = [], [], None
    try:
        for row in reader:
            cells = [clean(cell) for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = cells
                _check_header(shown, header, columns, row)
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise ValueError(
                    f"{shown}, line {reader.line_num}: {len(cells)} values for {len(header)} columns: put a value that "
                    "holds a comma between double quotes"
                )
            rows.append([cells[header.index(column)] for column in columns])
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{shown}, line {reader.line_num}: {error}") from None
    if header is None:
        raise ValueError(f"{shown} is empty: it needs the columns {', '.join(columns)}")
    return pd.DataFrame(rows, columns=columns, index=pd.Index(numbers, name=LINE), dtype=str)


def _check_header(shown: str, header: list[str], columns: list[str], raw: list[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        other = next((s for s in ";\t|" if len(raw) == 1 and s in raw[0]), None)
        hint = f"; its columns are separated by {other!r}, use commas" if other else ""
        raise ValueError(f"{shown} lacks column {missing[0]!r}: it needs {', '.join(columns)}{hint}")
    twice = next((column for column in columns if header.count(column) > 1), None)
    if twice:
        raise ValueError(f"{shown} has column {twice!r} more than once")


def lines(path) -> list[tuple[int, object]]:
    """(line number, object) of each line of a JSON-lines file; blank lines are skipped. Raises ValueError naming the
    first line that is not JSON."""
    found = []
    for number, line in enumerate(_text(path).split("\n"), 1):  # not splitlines: JSON may hold other line ends
        if not line.strip():
            continue
        try:
            found.append((number, json.loads(line)))
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error if isinstance(error, json.JSONDecodeError) else "too deep"
            raise ValueError(f"{relative(path)}, item {len(found) + 1}: not JSON ({reason})") from None
    return found
