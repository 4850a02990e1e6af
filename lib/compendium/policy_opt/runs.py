"""Runs, each in a process of its own; what they leave behind, and how an interrupted one goes on.

    runs.run(config, "runs/first")                                           # train, measure, record; in this process
    runs.launch([(config, "runs/first"), (other, "runs/second")], processes=2)    # each in its own

A run that diverges ends where it does, with the step and what to lower; it leaves no policy and is never finished. A
run's folder holds `policy/` (weights as safetensors, and the tokenizer), `log.csv` (one row a step), `looks.csv`
(accuracy during training, if asked for), `evaluation.csv` (accuracy after it, by split and storage format, with
intervals) and `run.json`: settings, versions, machine, commit, the policy's hash, and whether it is finished. The same
command resumes an unfinished run from its last checkpoint, or after training where only the evaluation is missing, to
the same bits as if nothing had happened, and leaves a finished one alone. Files that no run wrote are never replaced.

Libraries that speed training up change others as they are imported, and what they change stays changed. So no two runs
share a process: each is forked from a server that has imported TRL and done nothing else, which takes milliseconds
where a new interpreter would take seconds; a backend with an environment of its own is started there.
"""

import importlib.util
import json
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

from compendium import files, finite, formats, models, report
from compendium.paths import ROOT, relative
from compendium.policy_opt import policy, rewards, training_data
from compendium.policy_opt.config import Config, differences, make

# TRL's names of what is logged at every step, and ours.
LOGGED = {
    "step": "step", "loss": "loss", "grad_norm": "grad_norm", "reward": "reward", "reward_std": "reward_std",
    "frac_reward_zero_std": "flat", "drawn": "drawn", "completions/mean_length": "length",
    "completions/clipped_ratio": "cut_off", "entropy": "entropy", "divergence": "divergence",
    "clip_ratio/region_mean": "clipped", "weight/calculation": "weight_calculation",
    "weight/sentence": "weight_sentence", "distractors": "distractors", "mean_token_accuracy": "token_accuracy",
    "rewards/margins": "margin",
}  # fmt: skip


INSTALL = {
    "trl": "pip install -r requirements-rl.txt",
    "unsloth": "it needs an older trl than ours, so make an environment for it on a machine with a GPU: "
    "python3.11 -m venv .venv-unsloth && .venv-unsloth/bin/pip install -r requirements-unsloth.txt, "
    "and say python: .venv-unsloth/bin/python",
}


class RunError(RuntimeError):
    """A run that cannot start, or did not finish; the message says why and what to do."""

    for_users = True


class DivergedError(RunError):
    """A run whose training diverged in its own process; the message has the step and what to lower."""


def unavailable(config: Config) -> str | None:
    """Why the run's backend cannot be used in this process, and what to install; None if it can."""
    missing = [name for name in dict.fromkeys(["trl", config.backend]) if not importlib.util.find_spec(name)]
    reasons = [f"the package {' and '.join(missing)} is not installed"] if missing else []
    if config.backend == "unsloth" and not (torch.cuda.is_available() or torch.xpu.is_available()):
        reasons.append("there is no GPU that torch can use")
    if not reasons:
        return None
    return f"backend {config.backend!r} cannot run here: {', and '.join(reasons)}; {INSTALL[config.backend]}"


def quiet() -> None:
    """No reports of use to a hub; before TRL is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def record(out) -> dict | None:
    """What `run.json` in a run's folder says; None if there is none. Raises RunError if it is no run's."""
    path = Path(out) / "run.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["settings"], found["finished"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{relative(path)} is no record of a run: name another folder, or move it away") from None
    return found


def place(out: Path) -> None:
    """Raise RunError unless `out` is free for a run, or holds one: it can be written, and holds no other results."""
    if Path(out).is_symlink() and not Path(out).exists():
        raise RunError(f"{relative(out)} is a link that leads nowhere: name a folder")
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{relative(out)} cannot be written: {existing} is no folder that you may write to")
    if not record(out) and (other := [name for name in WRITTEN if (out / name).exists()]):
        raise RunError(
            f"{relative(out)} holds {other[0]}, and no run.json that says it is a run's: name another folder, or move "
            "it away"
        )


def run(config: Config, out) -> dict:
    """Train, measure and record one run in this process; returns the record. Resumes what was interrupted, and leaves
    alone what is finished. Raises RunError, or ValueError or ModelError for settings that turn out not to work."""
    out, started = Path(out), time.time()
    place(out)
    found = record(out)
    if found:
        changed = differences(config, make(found["settings"]))
        if changed:
            raise RunError(
                f"{relative(out)} holds a run with other settings ({', '.join(changed)}): name another folder, or "
                "delete this one"
            )
        if found["finished"] and intact(out, found):
            return found
    reason = unavailable(config)
    if reason:
        raise RunError(reason)
    quiet()
    models.set_threads(config.threads)
    asked = (
        {} if config.method == "reward" else training_data.held_out(config)
    )  # what cannot be had is missed before training
    from compendium.policy_opt import trainer as trainers

    settings = {name: shown(value) for name, value in asdict(config).items()}
    if found and found.get("trained") and intact(out, found):  # all but the evaluation was done before
        model, tokenizer = trainers.reload(config, out / "policy")
        started -= found["seconds"]
    else:
        model, tokenizer = _trained(config, out, settings, started)
    measured = evaluate(config, model, tokenizer, out / "policy", asked)
    report.Report(out).table(measured, "evaluation")
    packages = {name: metadata.version(name) for name in dict.fromkeys(["trl", "datasets", config.backend])}
    found = dict(
        settings=settings,
        finished=True,
        seconds=round(time.time() - started, 1),
        policy=models.sha256(out / "policy" / "model.safetensors"),
        **report.provenance(),
        **packages,
    )
    write(out, found)
    return found


def _trained(config: Config, out: Path, settings: dict, started: float):
    """`(model, tokenizer)` after training, which is recorded; the policy, the log and the looks are written."""
    from compendium.policy_opt import trainer as trainers

    files.check(out / "policy")
    checkpoints = out / "checkpoints"
    trainer = trainers.build(config, checkpoints)
    write(out, dict(settings=settings, finished=False))
    try:
        trainers.train(trainer, config, last_checkpoint(checkpoints))
        model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
        if config.lora_rank:
            model = model.merge_and_unload()
        lower = f"learning_rate ({config.learning_rate:g})"
        finite.check("a weight", model.parameters(), step=config.steps, lower=lower)
    except finite.Diverged as error:
        write(out, dict(settings=settings, finished=False, diverged=str(error)))
        raise
    save(model, tokenizer, out / "policy")
    history, writer = pd.DataFrame(trainer.state.log_history), report.Report(out)
    writer.table(history[history.loss.notna()][[n for n in LOGGED if n in history]].rename(columns=LOGGED), "log")
    if "n" in history:
        writer.table(history[history.n.notna()][["step", *SUMMARY]], "looks")
    written = models.sha256(out / "policy" / "model.safetensors")
    spent = round(time.time() - started, 1)
    write(out, dict(settings=settings, finished=False, trained=True, seconds=spent, policy=written))
    _drop_checkpoints(checkpoints)
    return model.eval(), tokenizer


def _drop_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    (folder / "README.md").unlink(missing_ok=True)  # TRL writes one beside them
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def forget(out: Path) -> None:
    """Remove what an earlier run left in its folder, and nothing else, so that the next one begins anew.

    Raises RunError, or FolderError, where there are results that no run wrote.
    """
    if files.read_manifest(out) is None:
        place(out)
    files.check(out / "policy")
    _drop_checkpoints(out / "checkpoints")
    shutil.rmtree(out / "policy", ignore_errors=True)
    for name in (*WRITTEN, "run.json"):
        if (out / name).is_file():
            (out / name).unlink()


WRITTEN = "policy", "checkpoints", "log.csv", "looks.csv", "evaluation.csv"  # and run.json


SUMMARY = "accuracy", "low", "high", "length", "finished", "n"


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end, where the trainer's state is; None if there is none."""
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def shown(value):
    """A setting as it is recorded: paths inside the repository without the part that differs between machines."""
    if isinstance(value, dict):
        return {shown(name): weight for name, weight in value.items()}
    return relative(value) if isinstance(value, str) and value.startswith(f"{ROOT}/") else value


def intact(out: Path, found: dict) -> bool:
    """Whether the policy that a record names is still there, and the tables beside it."""
    weights = out / "policy" / "model.safetensors"
    tables = ["log.csv"] + ["evaluation.csv"] * found["finished"]
    there = weights.exists() and all((out / name).exists() for name in tables)
    return there and models.sha256(weights) == found["policy"]


def write(out: Path, found: dict) -> None:
    report.write(out / "run.json", json.dumps(found, indent=1) + "\n")


def save(model, tokenizer, folder: Path) -> None:
    """Weights and tokenizer, as `models.load` reads them; the folder appears in one step."""
    with files.replaced(folder, command="policy_opt train") as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


def stored(model, weights: str):
    """A context in which a model's weights are as a storage format keeps them; a dtype's name leaves them."""
    return formats.quantised(model, weights) if weights in formats.FORMATS else nullcontext()


def greedy(config: Config, model, tokenizer, asked: dict[str, list]) -> list[dict]:
    """One row for each split and storage format, of greedy answers. asked: problems by split."""
    rows = []
    for split, problems in asked.items():
        for weights in [config.dtype, *config.formats]:
            with stored(model, weights):
                answers = policy.ask(model, tokenizer, problems, **config.asking)
            rows.append(dict(split=split, weights=weights, decoding="greedy", **policy.summary(answers)))
    return rows


def sampled(config: Config, model, reference, tokenizer, asked: dict[str, list]) -> list[dict]:
    """One row for each split, of answers sampled at temperature 1; `drift`: KL per token to the reference, nats."""
    rows = []
    for split, problems in asked.items():
        prompts = policy.prompts(
            tokenizer, [problem.question for problem in problems], chat=config.chat, instruction=config.instruction
        )
        made = policy.generate(model, tokenizer, prompts, temperature=1.0, length=config.length, seed=config.seed)
        summary = policy.summary(policy.judged(tokenizer, problems, made, config.length))
        drift = policy.drift(model, reference, tokenizer, prompts, made)
        rows.append(dict(split=split, weights=config.dtype, decoding="sampled", **summary, drift=drift))
    return rows


def evaluate(config: Config, model, tokenizer, folder: Path, asked: dict[str, list]) -> pd.DataFrame:
    """One row for each split, storage format and way of decoding; for a reward model, the share of held-out pairs
    that it orders rightly. The reference of `sampled` is what training began with."""
    from compendium.policy_opt.trainer import load

    if config.method == "reward":
        rows = _judge(config, folder) if config.evaluate else []
    else:
        rows = greedy(config, model, tokenizer, asked)
        if asked and config.method != "sft":
            rows += sampled(config, model, load(config)[0], tokenizer, asked)
    return pd.DataFrame(rows, columns=None if rows else ["split", *SUMMARY])


def _judge(config: Config, folder: Path) -> list[dict]:
    """How often a reward model scores the right answer above the wrong one: pairs from other problems, or the pairs
    of a file that come after those it was trained on."""
    from compendium import stats
    from compendium.policy_opt.trainer import load

    split = config.evaluate[0]
    if config.task == "pairs":
        rows = training_data.read_pairs(config.source)[config.problems :][: config.evaluated]
    else:
        other = config.but(split=split, problems=config.evaluated, seed=config.seed + 1)
        rows = training_data.rows(other, *load(config))
    if not rows:
        return []
    judge = rewards.Learned(str(folder), device=config.device)
    score = lambda kind: judge([row["prompt"] for row in rows], [row[kind] for row in rows])
    right = [float(a > b) for a, b in zip(score("chosen"), score("rejected"), strict=True)]
    low, high = stats.bootstrap_interval(right)
    return [dict(split=split, accuracy=sum(right) / len(right), low=low, high=high, n=len(right))]
