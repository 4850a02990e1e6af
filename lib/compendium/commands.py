"""The commands that run a sweep: `python -m compendium.SECTION STUDY settings.yaml`, the same options for all of them.

A study is a module with `sweep(given, *, out) -> units.Sweep`, where `given` is what the YAML file says; it raises
ValueError, in one line, before any work. Modules are imported when their command is given, and no other.
"""

import argparse
import importlib
import sys
from pathlib import Path

from compendium import settings
from compendium.paths import relative


def shard(text: str) -> tuple[int, int]:
    """'1/4' as (1, 4), for argparse."""
    i, n = map(int, text.split("/"))
    if not 1 <= i <= n:
        raise ValueError(text)
    return i, n


def add_studies(commands, studies: dict[str, tuple[str, str]]) -> None:
    """Add a command for every study. studies: module and help by the command's name."""
    for name, (module, what) in studies.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("settings", type=Path, help="YAML file")
        command.add_argument("--out", type=Path, help="folder for the tables (default: where the notebooks read them)")
        command.add_argument("--processes", type=settings.positive, default=2, help="of one thread each (default: 2)")
        command.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster instead, as in tcp://host:8786")
        command.add_argument("--shard", type=shard, metavar="I/N", help="every N-th unit from the I-th, for --merge")
        command.add_argument("--merge", type=Path, nargs="+", metavar="FOLDER", help="the folders of all shards")
        command.set_defaults(study=module)


def run(given: argparse.Namespace) -> None:
    """Run the sweep that was asked for, or merge its shards, and say what came of it. Raises ValueError and OSError."""
    from compendium import units

    sweep = importlib.import_module(given.study).sweep(settings.read(given.settings), out=given.out)
    if given.merge:
        tables = units.merge(sweep, given.merge)
    else:
        options = {"processes": given.processes, "scheduler": given.scheduler, "shard": given.shard}
        tables = units.run(sweep, **options)
    if given.shard:
        left = relative(units.shard_folder(sweep.out.absolute(), *given.shard))
        print(f"shard {given.shard[0]} of {given.shard[1]}: its units are in {left}")
        return
    sizes = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
    print(f"{relative(sweep.out)}  {len(sweep.units)} units; rows: {sizes}")


def main(parser: argparse.ArgumentParser, argv=None) -> None:
    """Parse and do what was asked; whatever a user can set right ends in one line.

    A section says so of an error of its own by the class attribute `for_users`.
    """
    from compendium import finite, models, units

    given = parser.parse_args(argv)
    try:
        (getattr(given, "do", None) or run)(given)
    except (ValueError, OSError, ImportError, models.ModelError, finite.Diverged, units.Lost) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")
    except RuntimeError as error:
        if not getattr(error, "for_users", False):  # a mistake in the code, whose place matters
            raise
        sys.exit(f"error: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on, what was finished is kept")
