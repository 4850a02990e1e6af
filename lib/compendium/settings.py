"""Settings of a command, from a YAML file, against the signatures of the functions that take them.

    settings.check(given, rates.search, rates.one, but={"out", "name", "seed"}, where="rates.yaml")

Names and types are refused before any work, in one line with what would be right: an unknown name with the nearest one,
a missing one, a value of another type than the annotation's, a number that is nan or infinite.
"""

import datetime
import inspect
import json
import math
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML, YAMLError

from compendium.paths import relative

RESERVED = "out"  # a notebook's folder for results, set by its runner


class SettingsError(ValueError):
    """A file or value of settings that cannot be read; the message says where and what to do."""


def parse(text: str, where: str):
    """What a YAML 1.2 text says, as DVC reads it (so 1e-4 is a number). Raises SettingsError naming `where`."""
    try:
        found = YAML(typ="safe", pure=True).load(text)
        json.dumps(found, default=str, skipkeys=True)  # an alias that holds itself has no end
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem, place = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        line = f" (line {place.line + 1})" if problem and place else ""
        what = problem or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(f"{where} is not valid YAML: {what}{line}") from None
    return found


def read(path: Path) -> dict:
    """A flat mapping from a YAML file in UTF-8. Raises SettingsError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"no parameters file {relative(path)}") from None
    except UnicodeDecodeError as error:
        what = f"is not in UTF-8 (byte {error.start + 1}): save it in that encoding"
        raise SettingsError(f"{relative(path)} {what}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {relative(path)}: {error.strerror}") from None
    found = parse(text, relative(path))
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{relative(path)} must hold `name: value` lines")
    return found


def matches(value, default) -> bool:
    """Whether `value` may replace `default`: same kind; whole numbers pass as floats; None defaults take anything."""
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):  # YAML has no tuples
        fits = lambda item: not default or any(matches(item, example) for example in default)
        return isinstance(value, (list, tuple)) and all(map(fits, value))
    return isinstance(value, type(default))


def validate(given: dict, declared: dict) -> None:
    """Raise SettingsError, with the nearest valid name or the expected type, unless `given` fits `declared`."""
    for name, value in given.items():
        _plain(value, name)
        if name == RESERVED:
            raise SettingsError(f"'{RESERVED}' is set by the runner: use --out")
        if name not in declared:
            names = [known for known in declared if known != RESERVED]
            close = get_close_matches(name, names, 1, 0.3)
            hint = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
            raise SettingsError(f"unknown parameter '{name}': {hint}")
        if not matches(value, declared[name]):
            raise SettingsError(
                f"parameter '{name}' is {value!r} ({type(value).__name__}), but its default is "
                f"{declared[name]!r} ({type(declared[name]).__name__}): give the same type"
            )


def _plain(value, name) -> None:
    """Raise SettingsError unless a parameter is made of text, numbers, true and false, null, lists and mappings."""
    if not isinstance(name, str):
        raise SettingsError(f"a parameter's name must be text, not {name!r}: put it in quotes")
    if isinstance(value, (list, tuple)):
        for item in value:
            _plain(item, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float)):
                raise SettingsError(f"parameter '{name}' has the key {key!r}: put it in quotes")
            _plain(item, name)
    elif isinstance(value, datetime.date):
        raise SettingsError(
            f"parameter '{name}' is the date {value}: to give it as text, put it in quotes within the value"
        )
    elif value is not None and not isinstance(value, (str, int, float)):
        raise SettingsError(
            f"parameter '{name}' is of type {type(value).__name__}: give text, numbers, lists or mappings"
        )


def fits(value, kind) -> bool:
    """Whether a value from YAML may be passed for an annotation: whole numbers pass as floats, true and false as bool
    only, and anything for an annotation that is no plain type."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return any(fits(value, part) for part in parts)
    if kind is None or kind is NoneType:
        return value is None
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if origin is list:
        return isinstance(value, list) and all(fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    return isinstance(value, kind) if kind in (str, bool, list, dict) else True


def check(given: dict, *functions, where: str, but=()) -> None:
    """Raise ValueError unless `given` names arguments of `functions`, all that have no default among them, with values
    that fit their annotations. but: arguments that do not come from the file. where: what is said to hold them."""
    wanted, kinds = {}, {}
    for function in reversed(functions):  # the first function's own word counts
        hints = get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD and name not in but:
                wanted[name], kinds[name] = parameter, hints.get(name, object)
    for name, value in given.items():
        if name not in wanted:
            close = get_close_matches(str(name), list(wanted), 1, 0.4)
            hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(wanted)}"
            raise ValueError(f"{where}: unknown setting {name!r}: {hint}")
        if not fits(value, kinds[name]):
            raise ValueError(f"{where}: {name} is {value!r}: it must be {inspect.formatannotation(kinds[name])}")
    for name, parameter in wanted.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"{where}: {name!r} is missing ({inspect.formatannotation(kinds[name])})")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
