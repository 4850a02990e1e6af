"""Settings of a command, from a YAML file, against the signatures of the functions that take them.

    settings.check(given, rates.search, rates.one, but={"out", "name", "seed"}, where="rates.yaml")

Names and types are refused before any work, in one line with what would be right: an unknown name with the nearest one,
a missing one, a value of another type than the annotation's, a number that is nan or infinite.
"""

import inspect
import math
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints


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
