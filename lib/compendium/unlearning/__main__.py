"""Unlearning from the command line: `audit` two checkpoints (`compendium.unlearning.audit`), or what the pipeline runs
(`known`, `runs`: `compendium.unlearning.runs`).
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from compendium import formats, run
from compendium.unlearning import audit, runs


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.unlearning", description="Unlearning, measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("known", help="write data/known.csv: the facts the embedded model knows")
    command = commands.add_parser("runs", help="every method on one domain and seed, into data/unlearned/")
    command.add_argument("settings", type=Path, help="YAML file: rates (a CSV), settings, limits, options, ...")
    command.add_argument("domain", help="relation and domain, as in country_capital-Europe")
    command.add_argument("seed", type=int)
    command = commands.add_parser("audit", help="forgotten, retained, permanent, changed inside? of two checkpoints")
    command.add_argument("--base", required=True, help="'embedded', a folder, or owner/model@commit on a hub")
    command.add_argument("--edited", required=True, help="the same, after unlearning")
    command.add_argument("--facts", required=True, help="CSV of the facts to forget: relation, subject, object, domain")
    command.add_argument("--out", help="folder for audit.json and audit.png")
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--formats", nargs="+", default=["nf4"], choices=list(formats.FORMATS), dest="stored")
    given = vars(parser.parse_args(argv))
    command = given.pop("command")
    try:
        if command == "audit":
            audit.run(given.pop("base"), given.pop("edited"), given.pop("facts"), **given)
        elif command == "known":
            print(f"{len(runs.known())} facts known, in {runs.KNOWN.name}")
        else:
            settings = run.read_yaml(given["settings"])
            rates = pd.read_csv(settings.pop("rates")).set_index("method").learning_rate.to_dict()
            ablations = settings.pop("ablations").get(f"{given['domain']}-{given['seed']}", [])
            methods = [name for name in rates if "," not in name] + ablations
            rates = {name: rates.get(name, rates[name.split(",")[0]]) for name in methods}
            domain, seed = given["domain"].replace("-", ", ", 1), given["seed"]
            runs.run(domain, seed, rates=rates, out=runs.folder(domain, seed), **settings)
    except (ValueError, OSError, run.RunError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
