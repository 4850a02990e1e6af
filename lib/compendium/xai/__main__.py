"""Section 05 from the command line: what the pipeline runs.

python -m compendium.xai audit_gap notebooks/05_xai/auditors.yaml
"""

import argparse

from compendium import commands

HERE = "compendium.xai.studies"
STUDIES = {
    "tabular_explainers": (f"{HERE}.tabular_explainers", "explainers on tables with a known score, and on real ones"),
    "image_explainers": (f"{HERE}.image_explainers", "explainers of image networks whose evidence is known"),
    "metric_reliability": (f"{HERE}.metric_reliability", "every metric judged, on every table and seed"),
    "posthoc_vs_mechanistic": (
        f"{HERE}.posthoc_vs_mechanistic",
        "planted rules, what evidence finds and what edits do",
    ),
    "audit_gap": (f"{HERE}.audit_gap", "worlds of models that hide what they know, or never knew it"),
}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.xai", description=__doc__.split("\n")[0])
    commands.add_studies(parser.add_subparsers(required=True), STUDIES)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
