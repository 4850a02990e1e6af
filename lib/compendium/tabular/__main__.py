"""Tabular foundation models from the command line: `pretrain` the network (`compendium.tabular.pretrain`), search
learning `rates` (`compendium.tabular.studies.learning_rates`), or `study` every method on every data set
(`compendium.tabular.studies.comparison`).
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from compendium import models, run, settings, units
from compendium.paths import TABULAR, relative
from compendium.tabular import pretrain, suite
from compendium.tabular.studies import comparison, learning_rates


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.tabular", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("pretrain", help="train the network on random tables, or go on training it")
    command.add_argument("settings", type=Path, help="YAML file with the arguments of pretrain.train")
    command.add_argument("--out", type=Path, default=TABULAR, help="folder for checkpoint, curve and state")
    command.add_argument("--steps", type=int, help="train up to this step, whatever the settings say")
    command = commands.add_parser("rates", help="every strategy's learning rates on development sets")
    command.add_argument("settings", type=Path, help="YAML file with the arguments of rates.search")
    command.add_argument("--out", type=Path, default=TABULAR / "rates.csv", help="file for the table")
    command = commands.add_parser("study", help="every method on every data set, into data/tabular/study/")
    command.add_argument("settings", type=Path, help="YAML file with the arguments of study.jobs, and processes")
    command.add_argument("--out", type=Path, default=TABULAR / "study", help="folder for the tables")
    given = parser.parse_args(argv)
    try:
        found, where = run.read_yaml(given.settings), given.settings.name
        if given.command == "rates":
            settings.check(found, learning_rates.search, learning_rates.one, where=where, but={"out", "name", "seed"})
            print(learning_rates.gains(learning_rates.search(given.out, **found)).round(4).to_string())
            return
        if given.command == "study":
            processes = found.pop("processes", 2)
            if not settings.fits(processes, int):
                raise ValueError(f"{where}: processes is {processes!r}: it must be int")
            settings.check(found, comparison.jobs, comparison.one, where=where, but={"name", "seed", "network"})
            tables = comparison.run(comparison.jobs(**found), processes=processes, out=given.out)
            print(f"{relative(given.out)}  {len(tables['scores'])} rows of scores")
            return
        if given.steps is not None:
            found["steps"] = given.steps
        settings.check(found, pretrain.train, where=where, but={"out", "progress"})
        path = pretrain.train(given.out, **found, progress=partial(print, flush=True))
        print(f"{relative(path)}  {path.stat().st_size / 1e6:.1f} MB, SHA-256 {models.sha256(path)}")
    except (ValueError, OSError, run.RunError, models.ModelError, suite.MissingExtra, units.Lost) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on, after the last validation or the last finished unit")


if __name__ == "__main__":
    main()
