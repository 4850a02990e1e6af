"""Policy optimisation from the command line: `train` a run or a `grid` of them, learn a `map`, `evaluate` a policy.

python -m compendium.policy_opt train run.yaml --out runs/first        # again: resume, or say that it is done
python -m compendium.policy_opt grid grid.yaml --out runs/grid         # the same, for many
python -m compendium.policy_opt map map.yaml --out runs/map
python -m compendium.policy_opt evaluate runs/first/policy --formats nf4
python -m compendium.policy_opt evaluate owner/model --revision ... --task gsm8k --source test.jsonl --length 512 --chat
python -m compendium.policy_opt evaluate owner/model --revision ... --lm-eval gsm8k arc_easy
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from compendium import commands, settings
from compendium.paths import relative

HERE = "compendium.policy_opt.studies"
STUDIES = {
    "grid": (f"{HERE}.grid", "the runs that the notebooks compare"),
    "backends": (f"{HERE}.backends", "parity with TRL, interference, and what learned rewards teach"),
}


def train(given) -> None:
    from compendium.policy_opt import config, launching, runs

    of = config.load(given.settings)
    if given.fresh:
        runs.forget(given.out)
    runs.place(given.out)
    if given.here:
        runs.run(of, given.out)
    else:
        launching.launch([(of, given.out)])
    found = pd.read_csv(given.out / "evaluation.csv")
    if len(found):
        print(found.round(3).to_string(index=False))
    print(f"policy, log and record in {relative(given.out)}")


def learn_map(given) -> None:
    from compendium.policy_opt.studies import map

    started = time.perf_counter()
    found = map.learn(settings.read(given.settings), out=given.out, processes=given.processes)
    accepted = sum(step["accepted"] for step in found.history)
    print(f"{found.runs} runs, {accepted} steps accepted, {(time.perf_counter() - started) / 60:.1f} minutes")


def evaluate(given) -> None:
    from compendium import models
    from compendium.policy_opt import config, policy, runs, training_data

    if given.lm_eval:
        lm_eval(given)
        return
    splits = given.splits or (["validation", "operands", "templates"] if given.task == "stories" else ["test"])
    of = config.make(
        dict(
            model=given.model,
            revision=given.revision,
            dtype=given.dtype,
            device=given.device,
            task=given.task,
            rewards={"marker": 1.0},
            source=given.source,
            source_revision=given.source_revision,
            split=splits[0],
            chat=given.chat,
            instruction=given.instruction,
            length=given.length,
            evaluate=splits,
            evaluated=given.problems,
            formats=given.formats,
        )
    )
    models.set_threads(given.threads)
    asked = training_data.held_out(of)
    model, tokenizer = policy.load(of.model, revision=of.revision, dtype=of.dtype, device=of.device)
    print(pd.DataFrame(runs.greedy(of, model, tokenizer, asked)).round(3).to_string(index=False))


def lm_eval(given) -> None:
    """The harness's own tasks, for those who have it and its data."""
    from compendium.policy_opt.runs import RunError

    try:
        import lm_eval as harness
    except ImportError:
        raise RunError("lm-eval tasks need the harness: pip install lm-eval") from None
    from lm_eval.utils import make_table

    where = f"pretrained={given.model}" + (f",revision={given.revision}" if given.revision else "")
    print(make_table(harness.simple_evaluate("hf", model_args=where, tasks=given.lm_eval, device=given.device)))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.policy_opt", description=__doc__.split("\n")[0])
    choice = parser.add_subparsers(required=True)
    command = choice.add_parser("train", help="one run, from a YAML file (see compendium.policy_opt.config)")
    command.add_argument("settings", type=Path)
    command.add_argument("--out", type=Path, required=True, help="folder for the policy, log and record")
    command.add_argument("--fresh", action="store_true", help="begin anew: remove what an earlier run left there")
    command.add_argument("--here", action="store_true", help="in this process instead of one of its own")
    command.set_defaults(do=train)
    commands.add_studies(choice, STUDIES)
    command = choice.add_parser("map", help="learn a mirror map")
    command.add_argument("settings", type=Path, help="YAML file: base, map_seed, iterations, population, sigma, rate")
    command.add_argument("--out", type=Path, required=True, help="folder for the tables")
    command.add_argument("--processes", type=settings.positive, default=2, help="runs side by side, of one thread")
    command.set_defaults(do=learn_map)
    command = choice.add_parser("evaluate", help="accuracy of a policy, with intervals")
    command.add_argument("model", help="a folder, or a hub id")
    command.add_argument("--revision")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", default="float32")
    command.add_argument("--threads", type=settings.positive, default=1)
    command.add_argument("--task", default="stories", choices=["stories", "gsm8k", "mbpp"])
    command.add_argument("--source", help="a JSON-lines file in the task's format, or a hub id")
    command.add_argument("--source-revision")
    command.add_argument("--splits", nargs="+", help="of the stories, or of a hub data set")
    command.add_argument("--chat", action="store_true", help="ask through the tokenizer's chat template")
    command.add_argument("--instruction", default="", help="after every question")
    command.add_argument("--problems", type=int, default=256, help="of each split at most")
    command.add_argument("--length", type=int, default=64, help="tokens of an answer at most")
    command.add_argument("--formats", nargs="+", default=[], metavar="FORMAT")
    command.add_argument("--lm-eval", nargs="+", metavar="TASK", help="the harness's tasks instead")
    command.set_defaults(do=evaluate)
    commands.main(parser, argv)


if __name__ == "__main__":
    main()
