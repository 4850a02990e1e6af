"""Spot check: a few stored units are made again and compared with the committed rows.

    python -m compendium.check                                      # drawn by today's date, 20 minutes
    python -m compendium.check --seed 7 --minutes 5 --only 04-comparison
    python -m compendium.check --accept                             # code only moved: keys follow

Units are drawn at random, from one sweep after another, until the minutes are used; at least one is made of every
sweep. A number agrees if it is the same to one unit of the last digit shown, or to a ten-thousandth of it. Another
processor changes last digits, and training makes more of them: a unit that was made elsewhere (units.json says on what)
agrees if all but a tenth of its cells do, and how many do not is said. With --accept, where all drawn units of a sweep
agree, units.json takes the keys of the code as it is.
"""

import argparse
import datetime
import importlib
import math
import random
import re
import sys
import time

from compendium import settings, units
from compendium.dependencies import module
from compendium.paths import ROOT, relative

RELATIVE = 1e-4
ELSEWHERE = 0.1  # share of cells; the most seen between two processors is .08, in log-probabilities after unlearning


def sweeps(only: list[str] | None = None) -> dict[str, units.Sweep]:
    """Every sweep of the pipeline by its stage. Raises ValueError for a name in `only` that is none."""
    found = {}
    for stage, spec in settings.read(ROOT / "pipeline.yaml")["stages"].items():
        for name in spec.get("entry", ()):
            if ".studies." in name and "def sweep(" in module(name).read_text(encoding="utf-8"):
                path = next(word for word in spec["command"].split() if word.endswith(".yaml"))
                found[stage] = (name, ROOT / path)
    if strange := set(only or ()) - set(found):
        raise ValueError(f"{min(strange)!r} is no stage of units: choose among {', '.join(found)}")
    return {
        stage: importlib.import_module(name).sweep(settings.read(path))
        for stage, (name, path) in found.items()
        if not only or stage in only
    }


def agrees(one: str, other: str) -> bool:
    """Whether two cells say the same: as text, or as numbers to RELATIVE or to the last digit shown."""
    if one == other:
        return True
    try:
        a, b = float(one), float(other)
    except ValueError:
        return False
    if not (math.isfinite(a) and math.isfinite(b)):
        return False
    return abs(a - b) <= max(RELATIVE * max(abs(a), abs(b)), 1.01 * _last_digit(one), 1.01 * _last_digit(other), 1e-9)


def _last_digit(text: str) -> float:
    """What one unit of the last digit of a decimal number is worth, as 0.001 for "3.142"; 0 for numbers of fewer than
    three decimals: tables leave out zeros at the end, and 0.5 is not 0.6."""
    found = re.fullmatch(r"[+-]?\d+\.(\d{3,})(?:e([+-]?\d+))?", text)
    return 10.0 ** (int(found[2] or 0) - len(found[1])) if found else 0.0


def differences(made: units.Rows, stored: units.Rows) -> tuple[list[str], int]:
    """What differs between two units, one line each, and how many cells were compared; an absent column is blank."""
    said, cells = [], 0
    for name in sorted({*made, *stored}):
        (columns, lines), (others, rows) = made.get(name, ([], [])), stored.get(name, ([], []))
        if len(lines) != len(rows):
            said.append(f"{name}: {len(rows)} rows are stored, {len(lines)} were made")
            continue
        for i, (line, row) in enumerate(zip(lines, rows, strict=True)):
            new, old = dict(zip(columns, line, strict=True)), dict(zip(others, row, strict=True))
            for column in dict.fromkeys([*columns, *others]):
                a, b, cells = old.get(column, ""), new.get(column, ""), cells + 1
                if not agrees(a, b):
                    said.append(f"{name}, row {i + 1}, {column}: {a!r} is stored, {b!r} was made")
    return said, cells


def check(of: dict[str, units.Sweep], *, seed: str, minutes: float, say=print) -> dict[str, list[str]]:
    """Make drawn units again; what differs, by stage. A stage whose table lacks a unit of its settings differs too.

    Of a unit made on another processor, cells are listed only where more than the share ELSEWHERE of them differ.
    """
    until, rng = time.monotonic() + 60 * minutes, random.Random(seed)
    wrong, compared, whole, todo = {stage: [] for stage in of}, 0, 0, {}
    for stage, sweep in of.items():
        arguments = [entry["arguments"] for entry in units.index(sweep.out)["units"]]
        if arguments != sweep.units:
            wrong[stage].append(f"{relative(sweep.out)} holds other units than its settings say: dvc repro {stage}")
            continue
        stored = list(units.read_rows(sweep.out).values())
        whole += sum(len(header) * len(lines) for rows in stored for header, lines in rows.values())
        todo[stage] = rng.sample(range(len(stored)), len(stored))
        todo[stage] = [(i, stored[i]) for i in todo[stage]]
    first = True
    while any(todo.values()) and (first or time.monotonic() < until):
        for stage in [stage for stage in of if todo.get(stage)]:
            if not first and time.monotonic() >= until:
                break
            i, stored = todo[stage].pop(0)
            begun = time.monotonic()
            made = units.Rows.of(of[stage].function(**of[stage].units[i]), of[stage].digits)
            found, cells = differences(made, stored)
            compared += cells
            elsewhere = made.made_on != stored.made_on
            if not elsewhere or len(found) > ELSEWHERE * cells:
                wrong[stage] += [f"unit {i + 1}, {line}" for line in found]
            say(
                f"{stage} unit {i + 1} of {len(of[stage].units)}: {cells} cells in {time.monotonic() - begun:.0f} s, "
                f"{'all agree' if not found else f'{len(found)} differ'}"
                + (f" (made on {stored.made_on or 'a processor that is not known'})" if found and elsewhere else "")
            )
        first = False
    say(f"{compared} of {whole} cells of all units were made again ({compared / max(whole, 1):.1%}), seed {seed}")
    return wrong


def accept(sweep: units.Sweep) -> None:
    """Give the stored units of a sweep the keys of the code as it is."""
    units.write(sweep, list(units.read_rows(sweep.out).values()))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.check", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", default=datetime.date.today().isoformat(), help="of the draw (default: the date)")
    parser.add_argument("--minutes", type=float, default=20.0, help="no unit is begun after so many (default: 20)")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages")
    parser.add_argument("--accept", action="store_true", help="where all agree, take the code as it is for theirs")
    given = parser.parse_args(argv)
    try:
        of = sweeps(given.only)
        wrong = check(of, seed=str(given.seed), minutes=given.minutes)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was changed")
    for stage, lines in wrong.items():
        for line in lines[:20]:
            print(f"{stage}: {line}")
        if given.accept and not lines:
            accept(of[stage])
            print(f"{stage}: the keys of {len(of[stage].units)} units are those of the code as it is")
    sys.exit(int(any(wrong.values())))


if __name__ == "__main__":
    main()
