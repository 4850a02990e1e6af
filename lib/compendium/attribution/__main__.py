"""Attribution from the command line: what the pipeline runs.

python -m compendium.attribution circuits notebooks/01_attribution/circuits.yaml
"""

import argparse

from compendium import commands

HERE = "compendium.attribution.studies"
STUDIES = {
    "circuits": (f"{HERE}.circuits", "every method on every behaviour and sample"),
    "selective_refusal": (f"{HERE}.selective_refusal", "every method of refusing, category by category"),
}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.attribution", description=__doc__.split("\n")[0])
    commands.add_studies(parser.add_subparsers(required=True), STUDIES)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
