"""Attribution from the command line: what the pipeline runs.

python -m compendium.attribution circuits notebooks/01_attribution/circuits.yaml
"""

import argparse

from compendium import commands

STUDIES = {"circuits": ("compendium.attribution.studies.circuits", "every method on every behaviour and sample")}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.attribution", description=__doc__.split("\n")[0])
    commands.add_studies(parser.add_subparsers(required=True), STUDIES)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
