"""`python -m compendium.unlearning audit --base A --edited B --facts F.csv`: see `compendium.unlearning.audit`."""

import argparse
import sys

from compendium import formats
from compendium.unlearning import audit


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.unlearning", description=__doc__.split(":")[0])
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "audit", help="forgotten, retained, permanent, erased? of two checkpoints"
    )
    command.add_argument("--base", required=True, help="'embedded', a folder, or owner/model@commit on a hub")
    command.add_argument("--edited", required=True, help="the same, after unlearning")
    command.add_argument("--facts", required=True, help="CSV of the facts to forget: relation, subject, object, domain")
    command.add_argument("--out", help="folder for audit.json and audit.png")
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--formats", nargs="+", default=["nf4"], choices=list(formats.FORMATS), dest="stored")
    given = vars(parser.parse_args(argv))
    del given["command"]
    try:
        audit.run(given.pop("base"), given.pop("edited"), given.pop("facts"), **given)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
