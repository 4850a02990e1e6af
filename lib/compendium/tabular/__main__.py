"""Tabular foundation models from the command line.

python -m compendium.tabular pretrain notebooks/04_tabular/pretrain.yaml
python -m compendium.tabular learning_rates notebooks/04_tabular/learning_rates.yaml
python -m compendium.tabular comparison notebooks/04_tabular/comparison.yaml
python -m compendium.tabular pretraining notebooks/04_tabular/pretraining.yaml
python -m compendium.tabular when_to_fine_tune notebooks/04_tabular/context_lengths.yaml
"""

import argparse
from functools import partial
from pathlib import Path

from compendium import commands, settings
from compendium.paths import TABULAR, relative

STUDIES = {
    "learning_rates": ("compendium.tabular.studies.learning_rates", "every strategy's rates on development sets"),
    "comparison": ("compendium.tabular.studies.comparison", "every method on every data set"),
    "pretraining": ("compendium.tabular.studies.pretraining", "the pretrained network and baselines on small tables"),
    "when_to_fine_tune": ("compendium.tabular.studies.when_to_fine_tune", "more rows in the context"),
}


def pretrain(given) -> None:
    from compendium import models
    from compendium.tabular import pretrain

    found = settings.read(given.settings)
    if given.steps is not None:
        found["steps"] = given.steps
    settings.check(found, pretrain.train, where=given.settings.name, but={"out", "progress"})
    path = pretrain.train(given.out, **found, progress=partial(print, flush=True))
    print(f"{relative(path)}  {path.stat().st_size / 1e6:.1f} MB, SHA-256 {models.sha256(path)}")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.tabular", description=__doc__.split("\n")[0])
    choice = parser.add_subparsers(required=True)
    command = choice.add_parser("pretrain", help="train the network on random tables, or go on training it")
    command.add_argument("settings", type=Path, help="YAML file with the arguments of pretrain.train")
    command.add_argument("--out", type=Path, default=TABULAR, help="folder for checkpoint, curve and state")
    command.add_argument("--steps", type=int, help="train up to this step, whatever the settings say")
    command.set_defaults(do=pretrain)
    commands.add_studies(choice, STUDIES)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
