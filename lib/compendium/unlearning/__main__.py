"""Unlearning from the command line: `audit` two checkpoints of your own, or what the pipeline runs.

python -m compendium.unlearning audit --base embedded --edited FOLDER --facts FACTS.csv --out FOLDER
python -m compendium.unlearning known
python -m compendium.unlearning unlearned notebooks/02_unlearning/unlearned.yaml
"""

import argparse
import sys

from compendium import commands, settings

STUDIES = {
    "bin_width": ("compendium.unlearning.studies.bin_width", "plain updates beside the bins of NF4"),
    "unlearned": ("compendium.unlearning.studies.unlearned", "every method on every domain and seed"),
    "baselines": ("compendium.unlearning.studies.baselines", "every method over its learning rates"),
    "quantization_reversal": ("compendium.unlearning.studies.quantization_reversal", "what storage brings back"),
    "sparsity_permanence": ("compendium.unlearning.studies.sparsity_permanence", "supports of all sizes, stored"),
}


def known(_) -> None:
    from compendium.unlearning import known

    print(f"{len(known.write())} facts known, in {known.KNOWN.name}")


def audit(given) -> None:
    from compendium import formats
    from compendium.unlearning import audit

    if strange := set(given.formats) - set(formats.FORMATS):
        raise ValueError(f"unknown format {min(strange)!r}: choose among {', '.join(formats.FORMATS)}")
    options = {
        "out": given.out,
        "device": given.device,
        "dtype": given.dtype,
        "memory": given.memory,
        "threads": given.threads,
        "stored": given.formats,
    }
    found = audit.run(given.base, given.edited, given.facts, **options)
    if None in found["properties"].values():
        sys.exit(audit.UNJUDGED)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.unlearning", description=__doc__.split("\n")[0])
    choice = parser.add_subparsers(required=True)
    choice.add_parser("known", help="write data/known.csv: the facts the embedded model knows").set_defaults(do=known)
    command = choice.add_parser("audit", help="four properties of two checkpoints; status 3: not all could be judged")
    command.add_argument("--base", required=True, help="'embedded', a folder, or owner/model@commit on a hub")
    command.add_argument("--edited", required=True, help="the same, after unlearning")
    command.add_argument("--facts", required=True, help="CSV of the facts to forget: relation, subject, object, domain")
    command.add_argument("--out", help="folder for audit.json and audit.png")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    command.add_argument("--memory", type=float, help="gigabytes that attribution may take beside the weights")
    command.add_argument("--threads", type=settings.positive, default=2)
    command.add_argument("--formats", nargs="+", default=["nf4"], help="storage formats to ask in")
    command.set_defaults(do=audit)
    commands.add_studies(choice, STUDIES)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
