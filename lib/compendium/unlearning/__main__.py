"""Unlearning from the command line: `audit` two checkpoints (`compendium.unlearning.audit`), or what the pipeline runs
(`known`, `runs`: `compendium.unlearning.studies.unlearned`).
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from compendium import finite, formats, models, run, settings, units
from compendium.unlearning import audit
from compendium.unlearning.studies import unlearned


def study(path: Path, name: str, seed: int) -> None:
    """The runs that a YAML file describes, on one domain and seed. Raises ValueError before the first one begins."""
    given = run.read_yaml(path)
    table, ablations = given.pop("rates", None), given.pop("ablations", {})
    settings.check(given, unlearned.run, where=path.name, but={"domain", "seed", "rates", "out"})
    if not isinstance(table, str):
        raise ValueError(f"{path.name}: rates is {table!r}: name a CSV file with the columns method, learning_rate")
    if not settings.fits(ablations, dict[str, list[str]]):
        raise ValueError(f"{path.name}: ablations is {ablations!r}: it must be lists of methods, by domain and seed")
    if "-" not in name:
        raise ValueError(f"{name!r} is no relation and domain: write them as in country_capital-Europe")
    found = pd.read_csv(table)
    if missing := {"method", "learning_rate"} - set(found):
        raise ValueError(f"{table} lacks column {min(missing)!r}: it needs method and learning_rate")
    rates = found.set_index("method").learning_rate.to_dict()
    methods = [method for method in rates if "," not in method] + ablations.get(f"{name}-{seed}", [])
    for method in methods:
        if method not in rates and method.split(",")[0] not in rates:
            raise ValueError(f"{table} has no learning rate for {method!r}")
    rates = {method: rates.get(method, rates.get(method.split(",")[0])) for method in methods}
    domain = name.replace("-", ", ", 1)
    unlearned.run(domain, seed, rates=rates, out=unlearned.folder(domain, seed), **given)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.unlearning", description="Unlearning, measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("known", help="write data/known.csv: the facts the embedded model knows")
    command = commands.add_parser("runs", help="every method on one domain and seed, into data/unlearned/")
    command.add_argument("settings", type=Path, help="YAML file: rates (a CSV), settings, limits, options, ...")
    command.add_argument("domain", help="relation and domain, as in country_capital-Europe")
    command.add_argument("seed", type=int)
    command = commands.add_parser("audit", help="four properties of two checkpoints; status 3: not all could be judged")
    command.add_argument("--base", required=True, help="'embedded', a folder, or owner/model@commit on a hub")
    command.add_argument("--edited", required=True, help="the same, after unlearning")
    command.add_argument("--facts", required=True, help="CSV of the facts to forget: relation, subject, object, domain")
    command.add_argument("--out", help="folder for audit.json and audit.png")
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=settings.positive, default=2)
    command.add_argument("--formats", nargs="+", default=["nf4"], choices=list(formats.FORMATS), dest="stored")
    given = vars(parser.parse_args(argv))
    command = given.pop("command")
    try:
        if command == "audit":
            found = audit.run(given.pop("base"), given.pop("edited"), given.pop("facts"), **given)
            if None in found["properties"].values():
                sys.exit(audit.UNJUDGED)
        elif command == "known":
            print(f"{len(unlearned.known())} facts known, in {unlearned.KNOWN.name}")
        else:
            study(given["settings"], given["domain"], given["seed"])
    except (ValueError, OSError, run.RunError, models.ModelError, finite.Diverged, units.Lost) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is kept; the same command goes on")


if __name__ == "__main__":
    main()
