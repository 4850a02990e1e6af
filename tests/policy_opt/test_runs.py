"""Runs: isolation, resumption, records, every method, the command."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

pytest.importorskip("trl")

from compendium import files, finite, models
from compendium.policy_opt import __main__ as command
from compendium.policy_opt import comparisons, config, launching, policy, rewards, runs, training_data, word_problems
from compendium.policy_opt.studies import grid

SMALL = dict(width=64, layers=2, heads=2, inner=64)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with a small random policy."""
    folder = tmp_path_factory.mktemp("start")
    model, tokenizer = policy.fresh(3, **SMALL)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of right solutions and ones with a wrong answer."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [
        dict(prompt=p.question, chosen=p.solution, rejected=p.solution.rsplit(" ", 1)[0] + " 1")
        for p in word_problems.problems(24)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def settings(start, **changes):
    base = dict(
        model=start,
        method="grpo",
        problems=16,
        batch=8,
        group=4,
        length=12,
        steps=2,
        learning_rate=1e-2,
        rewards={f"{__name__}:short": 1.0},
        evaluated=8,
    )
    return config.make(base | changes)


def short(completion_ids, **_):
    """Something that random policies differ in."""
    return [float(sum(ids) % 7) for ids in completion_ids]


stop_at = []


def fragile(completion_ids, trainer_state, **_):
    """Interrupts the run, once, at the step it is told."""
    if trainer_state.global_step in stop_at:
        stop_at.clear()
        raise KeyboardInterrupt
    return short(completion_ids)


def die(config, out):
    os._exit(9)


def fail(config, out):
    raise ValueError("nothing to learn from")


def weights(folder):
    return (folder / "policy" / "model.safetensors").read_bytes()


def test_a_run_after_another_is_the_run_alone(start, tmp_path):
    """Even if the first changes libraries for the worse, and even in parallel; in one process it would not be."""
    first = settings(start, rewards={"compendium.policy_opt.studies.backends:meddler": 1.0})
    second = settings(start, seed=1, divergence="prob_l2", coefficient=10.0)
    launching.launch([(first, tmp_path / "a"), (second, tmp_path / "b")])
    launching.launch([(second, tmp_path / "alone"), (first, tmp_path / "beside")], processes=2)
    assert weights(tmp_path / "b") == weights(tmp_path / "alone")
    assert weights(tmp_path / "a") == weights(tmp_path / "beside") != weights(tmp_path / "b")
    log = pd.read_csv(tmp_path / "b" / "log.csv")
    assert log.step.tolist() == [1, 2]
    assert {"reward", "length", "entropy", "divergence", "loss"} <= set(log)
    original = torch.Tensor.exp
    try:
        runs.run(first, tmp_path / "here")
        runs.run(second, tmp_path / "spoilt")
    finally:
        torch.Tensor.exp = original
    assert weights(tmp_path / "here") == weights(tmp_path / "a")
    assert weights(tmp_path / "spoilt") != weights(tmp_path / "b")


def test_an_interrupted_run_goes_on_to_the_same_bits(start, tmp_path):
    of = settings(
        start,
        rewards={f"{__name__}:fragile": 1.0},
        steps=6,
        save_every=2,
        look_every=2,
        looked_at=4,
        problems=6,
        credit="random",
        dynamic_sampling=2,
        divergence="prob_l2",
        coefficient=1.0,
    )
    whole = runs.run(of, tmp_path / "whole")
    stop_at.append(5)  # in the second epoch of three steps, whose order of prompts is another
    with pytest.raises(KeyboardInterrupt):
        runs.run(of, tmp_path / "cut")
    assert runs.record(tmp_path / "cut")["finished"] is False
    assert runs.run(of, tmp_path / "cut")["policy"] == whole["policy"]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    for name in ("log", "looks", "evaluation"):
        assert (tmp_path / "cut" / f"{name}.csv").read_text() == (tmp_path / "whole" / f"{name}.csv").read_text()
    assert pd.read_csv(tmp_path / "whole" / "looks.csv").step.tolist() == [2, 4, 6]
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    assert runs.last_checkpoint(tmp_path) is None
    for name in ("checkpoint-9", "checkpoint-10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-11").mkdir()
    assert runs.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_finished_run_is_left_alone_and_another_refused(start, tmp_path):
    of = settings(start, steps=1, formats=["nf4"], evaluate=["validation", "templates"])
    made = runs.run(of, tmp_path)
    assert made["policy"] == models.sha256(tmp_path / "policy" / "model.safetensors")
    assert {"commit", "torch", "trl", "datasets", "seconds", "settings", "machine"} <= set(made)
    assert config.make(made["settings"]) == of
    stamp = (tmp_path / "policy" / "model.safetensors").stat().st_mtime_ns
    assert runs.run(of, tmp_path) == made
    assert (tmp_path / "policy" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(runs.RunError, match=r"other settings \(steps, learning_rate\)"):
        runs.run(of.but(steps=2, learning_rate=0.1), tmp_path)
    found = pd.read_csv(tmp_path / "evaluation.csv")
    assert len(found) == 2 * 3
    assert set(found.weights) == {"float32", "nf4"}
    assert ((found.low <= found.accuracy) & (found.accuracy <= found.high)).all()
    assert found[found.decoding == "sampled"].drift.gt(0).all()
    model, _ = policy.load(str(tmp_path / "policy"))
    assert model.num_parameters() == policy.fresh(**SMALL)[0].num_parameters()
    (tmp_path / "policy" / "model.safetensors").unlink()  # lost: made again
    assert runs.run(of, tmp_path)["policy"] == made["policy"]


def test_every_method_of_the_family_runs(start, tmp_path):
    made = {}
    for method in ("grpo", "dapo", "dr_grpo", "gspo"):
        of = settings(start, method=method, divergence="mirror", coefficient=0.1, micro_batches=2, updates=2)
        if method == "gspo":
            of = of.but(lora_rank=2)
        made[method] = runs.run(of, tmp_path / method)["policy"]
    assert len(set(made.values())) == 4
    names = models.load(str(tmp_path / "gspo" / "policy"))[0].state_dict()
    assert not [name for name in names if "lora" in name]


def test_supervised_and_preference_training(start, pairs, tmp_path):
    taught = runs.run(settings(start, method="sft", steps=6, batch=4, length=60), tmp_path / "sft")
    log = pd.read_csv(tmp_path / "sft" / "log.csv")
    assert log.loss.iloc[-1] < log.loss.iloc[0]
    assert taught["finished"]
    given = dict(task="pairs", source=pairs, problems=16, batch=8, steps=8)
    runs.run(settings(start, method="dpo", **given), tmp_path / "dpo")
    assert pd.read_csv(tmp_path / "dpo" / "log.csv").margin.iloc[-1] > 0
    runs.run(settings(start, method="reward", **given), tmp_path / "judge")
    found = pd.read_csv(tmp_path / "judge" / "evaluation.csv")
    assert found.n.tolist() == [8]  # pairs of the file that it was not trained on
    assert found.accuracy.item() > 0.5


def test_a_learned_reward_scores_as_in_training(start, pairs, tmp_path):
    of = settings(start, method="reward", task="pairs", source=pairs, problems=16, batch=8, steps=2, evaluate=[])
    runs.run(of, tmp_path / "judge")
    judge = rewards.get(str(tmp_path / "judge" / "policy"))
    row = json.loads(Path(pairs).read_text().splitlines()[0])
    ids = judge.tokenizer(row["prompt"] + row["chosen"])["input_ids"] + [judge.tokenizer.eos_token_id]
    with torch.no_grad():
        expected = judge.model(torch.tensor([ids])).logits.item()
    found = judge([row["prompt"]] * 2, [row["chosen"], row["rejected"]])
    assert found[0] == pytest.approx(expected, abs=1e-5)
    runs.run(settings(start, steps=1, rewards={str(tmp_path / "judge" / "policy"): 0.5}), tmp_path / "taught")


def test_pairs_are_made_of_the_policys_own_answers(start, monkeypatch):
    model, tokenizer = policy.load(start)
    found = word_problems.problems(3)
    text = lambda p, ok: [*tokenizer(p.solution if ok else " #### 0")["input_ids"]]
    monkeypatch.setattr(
        policy,
        "generate",
        lambda *_, **__: [
            text(found[0], False),
            text(found[0], True),
            text(found[1], True),
            text(found[1], True),
            text(found[2], False),
            text(found[2], False),
        ],
    )
    of = settings(start, method="dpo", samples=2)
    made = training_data.pairs(of, model, tokenizer, [p.question for p in found], found)
    assert made == [dict(prompt=found[0].question, chosen=found[0].solution, rejected=" #### 0")]
    with pytest.raises(config.ConfigError, match="no pairs to learn from"):
        training_data.pairs(of, model, tokenizer, [found[2].question], found[2:])


def test_what_goes_wrong_in_a_run_is_said_in_one_line(start, tmp_path):
    of = settings(start)
    with pytest.raises(runs.RunError, match="ValueError: nothing to learn from"):
        launching.alone(of, tmp_path / "a", fail)
    with pytest.raises(runs.RunError, match="was killed; the same command resumes it"):
        launching.alone(of, tmp_path / "b", die)


def test_what_cannot_be_asked_is_missed_before_training(start, tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text(
        "".join(json.dumps(dict(question=p.question, answer=p.solution)) + "\n" for p in word_problems.problems(6))
    )
    given = dict(task="gsm8k", source=str(file), evaluate=["rest"], evaluated=4)
    of = settings(start, problems=4, **given)
    questions = lambda split: [p.question for p in training_data.problems(of, split, 4)]
    assert len(questions("train")) == 4
    assert len(questions("rest")) == 2
    assert not set(questions("train")) & set(questions("rest"))
    with pytest.raises(config.ConfigError, match="holds no more than the 6 problems for training"):
        runs.run(settings(start, problems=6, **given), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    runs.run(settings(start, problems=6, steps=1, **given | dict(evaluate=[])), tmp_path / "run")
    assert pd.read_csv(tmp_path / "run" / "evaluation.csv").empty


@pytest.mark.slow
def test_the_embedded_model_is_taught_and_reinforced(tmp_path):
    """Two steps of SFT, then two of GRPO with ProbL2 and counterfactual credit, 135 million parameters on a processor."""
    base = dict(problems=8, batch=4, group=2, length=32, steps=2, evaluated=2, threads=2)
    taught = config.make(base | dict(method="sft", model="embedded"))
    runs.run(taught, tmp_path / "taught")
    of = taught.but(
        method="grpo",
        model=str(tmp_path / "taught" / "policy"),
        rewards={f"{__name__}:short": 1.0},
        divergence="prob_l2",
        coefficient=0.1,
        credit="counterfactual",
    )
    runs.run(of, tmp_path / "reinforced")
    log = pd.read_csv(tmp_path / "reinforced" / "log.csv")
    assert log.step.tolist() == [1, 2]
    assert (log.grad_norm > 0).all()
    assert log.divergence.iloc[0] == pytest.approx(0, abs=1e-6)
    assert log.divergence.iloc[1] > log.divergence.iloc[0]
    found = pd.read_csv(tmp_path / "reinforced" / "evaluation.csv")
    assert found.decoding.tolist() == ["greedy", "sampled"]


def test_a_backend_that_is_not_there_says_why_and_what_to_install(start, tmp_path, monkeypatch):
    of = settings(start, backend="unsloth")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(runs.RunError) as error:
        runs.run(of, tmp_path)
    for part in ("unsloth is not installed", "no GPU that torch can use", "requirements-unsloth.txt"):
        assert part in str(error.value)
    assert not (tmp_path / "run.json").exists()
    with pytest.raises(runs.RunError, match="there is no interpreter /nowhere/python"):
        launching.launch([(of.but(python="/nowhere/python"), tmp_path)])
    monkeypatch.setattr(runs.importlib.util, "find_spec", lambda name: None)
    assert "requirements-rl.txt" in runs.unavailable(settings(start))


def test_the_command(start, tmp_path, capsys, monkeypatch):
    file = tmp_path / "run.yaml"
    given = dict(model=start, method="grpo", problems=8, batch=4, group=2, length=8, steps=1, evaluated=4)
    file.write_text(json.dumps(given))
    command.main(["train", str(file), "--out", str(tmp_path / "run"), "--here"])
    assert "accuracy" in capsys.readouterr().out
    command.main(["evaluate", str(tmp_path / "run" / "policy"), "--problems", "4", "--length", "8", "--formats", "nf4"])
    assert capsys.readouterr().out.count("nf4") == 3
    file.write_text("step: 3\n")
    for arguments, message in (
        (["train", str(file), "--out", str(tmp_path / "x")], "error: unknown parameter 'step': did you mean 'steps'?"),
        (["evaluate", "nobody", "--problems", "4"], "error: unknown model 'nobody'"),
    ):
        with pytest.raises(SystemExit, match=message.replace("?", r"\?")):
            command.main(arguments)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(SystemExit, match="pip install lm-eval"):
        command.main(["evaluate", start, "--lm-eval", "gsm8k"])


def test_a_grid_goes_on_where_it_ended_and_is_read_back(start, tmp_path, monkeypatch):
    plan = tmp_path / "grid.yaml"
    base = dict(
        model=start,
        method="grpo",
        problems=16,
        batch=8,
        group=4,
        length=12,
        steps=2,
        learning_rate=1e-2,
        rewards={f"{__name__}:short": 1.0},
        evaluated=8,
        look_every=1,
        looked_at=8,
        formats=["nf4"],
    )
    given = dict(
        base=base, seeds=[0, 1], conditions={"none": {}, "k3": {"divergence": "k3", "coefficient": 0.1, "seeds": [0]}}
    )
    plan.write_text(json.dumps(given))
    made, run = [], launching.alone

    def interrupted(settings, folder):
        made.append((settings.divergence, settings.seed))
        if len(made) == 2:
            raise runs.RunError("its process was killed")
        return run(settings, folder)

    monkeypatch.setattr(launching, "alone", interrupted)
    arguments = ["grid", str(plan), "--out", str(tmp_path / "grid"), "--processes", "1"]
    with pytest.raises(SystemExit, match="was killed"):
        command.main(arguments)
    assert not (tmp_path / "grid").exists()
    seen = []
    monkeypatch.setattr(launching, "alone", lambda of, out: seen.append((of.divergence, of.seed)) or run(of, out))
    command.main(arguments)
    assert seen == [("none", 1), ("k3", 0)], "the finished run was made again"
    assert not list(tmp_path.glob(".grid*"))
    tables = comparisons.read(tmp_path / "grid")
    begun = tables.start
    assert tables.finals.groupby("condition").seed.unique().map(list).to_dict() == {"k3": [0], "none": [0, 1]}
    assert tables.looks.step.unique().tolist() == [1, 2]
    assert set(begun.decoding) == {"greedy", "sampled"}
    assert begun[begun.decoding == "sampled"].drift.abs().max() < 1e-6
    assert len(comparisons.survival(tables.finals, begun)) == 3


def test_plans_with_a_key_too_many_or_too_few_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'conditions' is missing"):
        grid.sweep({"base": {}, "seeds": [0]})
    with pytest.raises(ValueError, match="unknown setting 'steps'"):
        grid.sweep({"base": {}, "seeds": [0], "conditions": {}, "steps": 3})
    with pytest.raises(FileNotFoundError, match="dvc repro 03-grid"):
        comparisons.read(tmp_path)


DIVERGING = {
    "sft": dict(method="sft", learning_rate=1e30, length=60),
    "sft, infinite weights": dict(method="sft", learning_rate=1e38, length=60, steps=1, max_grad_norm=0.0),
    "sft, adapters": dict(method="sft", learning_rate=1e30, lora_rank=2),
    "sft, checkpoints": dict(method="sft", learning_rate=1e30, warmup=3, save_every=1),
    "dpo": dict(method="dpo", learning_rate=1e4, task="pairs"),
    "reward": dict(method="reward", learning_rate=1e30, task="pairs"),
    "grpo": dict(learning_rate=1e30),
}


@pytest.mark.parametrize("name", DIVERGING)
def test_a_run_that_diverges_is_never_finished(start, pairs, tmp_path, name):
    of = settings(start, **dict(steps=4, source=pairs) | DIVERGING[name])
    for _ in range(2):  # the second call resumes from the last healthy checkpoint, if there is one
        with pytest.raises(finite.Diverged, match=r"at step \d: lower learning_rate"):
            runs.run(of, tmp_path / "run")
        found = runs.record(tmp_path / "run")
        assert found["finished"] is False
        assert "lower learning_rate" in found["diverged"]
        assert launching.diverged(tmp_path / "run")
        assert not (tmp_path / "run" / "policy").exists()
    for file in (tmp_path / "run").glob("checkpoints/*/model.safetensors"):
        assert all(weight.isfinite().all() for weight in safetensors.torch.load_file(file).values())


def nothing(completion_ids, **_):
    return [0.0] * len(completion_ids)


def test_no_steps_or_nothing_learned_is_no_finished_run(start, tmp_path, monkeypatch):
    with pytest.raises(config.ConfigError, match="1 problems are too few for one step, which asks 2"):
        runs.run(settings(start, problems=1), tmp_path / "few")
    assert runs.record(tmp_path / "few") is None
    from compendium.policy_opt import trainer

    train = trainer.SFTTrainer.train
    monkeypatch.setattr(trainer.SFTTrainer, "train", lambda self, **_: None)
    with pytest.raises(config.ConfigError, match="training ended after 0 of 2 steps"):
        runs.run(settings(start, method="sft"), tmp_path / "none")
    monkeypatch.setattr(trainer.SFTTrainer, "train", train)
    monkeypatch.setattr(
        trainer.SFTTrainer,
        "compute_loss",
        lambda self, model, *_, **__: 0 * sum(weight.sum() for weight in model.parameters()),
    )
    with pytest.raises(config.ConfigError, match="the loss was 0 at each of 2 steps"):
        runs.run(settings(start, method="sft"), tmp_path / "zero")
    for name in ("none", "zero"):
        assert runs.record(tmp_path / name)["finished"] is False
        assert not (tmp_path / name / "policy").exists()
    made = runs.run(settings(start, rewards={f"{__name__}:nothing": 1.0}, steps=1), tmp_path / "equal")
    assert made["finished"], "equal rewards teach nothing, and that is a result"


def test_training_is_kept_when_the_evaluation_fails(start, tmp_path, monkeypatch):
    of = settings(start, divergence="k3", coefficient=0.1, evaluate=["validation", "templates"], formats=["nf4"])
    runs.run(of, tmp_path / "whole")
    judged, tries = policy.ask, []

    def fails(*arguments, **options):
        tries.append(1)
        if len(tries) == 3:
            raise MemoryError("out of memory")
        return judged(*arguments, **options)

    monkeypatch.setattr(policy, "ask", fails)
    with pytest.raises(MemoryError):
        runs.run(of, tmp_path / "cut")
    assert runs.record(tmp_path / "cut")["finished"] is False
    stamp = (tmp_path / "cut" / "policy" / "model.safetensors").stat().st_mtime_ns
    assert runs.run(of, tmp_path / "cut")["finished"]
    assert (tmp_path / "cut" / "policy" / "model.safetensors").stat().st_mtime_ns == stamp, "it was trained again"
    for name in ("log.csv", "evaluation.csv", "policy/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_takes_no_others_place(start, tmp_path):
    of = settings(start, steps=1)
    for name in ("policy", "checkpoints"):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "mine.txt").write_text("mine")
        with pytest.raises(runs.RunError, match=f"holds {name}, and no run.json"):
            runs.run(of, tmp_path / name)
        assert (tmp_path / name / name / "mine.txt").read_text() == "mine"
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(runs.RunError, match="is no record of a run"):
        runs.run(of, tmp_path)
    runs.run(of, tmp_path / "run")
    (tmp_path / "run" / "policy" / "mine.txt").write_text("mine")
    (tmp_path / "run" / "policy" / "model.safetensors").unlink()
    with pytest.raises(files.FolderError, match=r"holds mine\.txt"):
        runs.run(of, tmp_path / "run")
    with pytest.raises(runs.RunError, match="is no folder"):
        runs.run(of, tmp_path / "run.json" / "below")


def test_a_map_that_makes_a_run_diverge_is_the_worse_one(start, tmp_path, monkeypatch):
    """A search goes on without it, and after an interruption with the runs that were made."""
    ran = []

    def alone(of, folder):
        ran.append(str(folder))
        if folder.name == "1":
            runs.write(folder, dict(settings={}, finished=False, diverged="the loss is nan at step 1"))
            raise runs.DivergedError("the loss is nan at step 1")
        if len(ran) == 7:
            raise runs.RunError("its process was killed")
        return runs.run(of, folder)

    base = dict(
        model=start, method="grpo", problems=8, batch=4, group=2, length=8, steps=1, evaluated=4, coefficient=0.1
    )
    plan = tmp_path / "plan.yaml"
    given = dict(base=base, map_seed=1, iterations=1, population=4, sigma=0.01, rate=0.01)
    plan.write_text(json.dumps(given))
    monkeypatch.setattr(launching, "alone", alone)
    arguments = ["map", str(plan), "--out", str(tmp_path / "map"), "--processes", "1"]
    with pytest.raises(SystemExit, match="error: its process was killed"):
        command.main(arguments)
    assert not (tmp_path / "map").exists()
    command.main(arguments)
    found = pd.read_csv(tmp_path / "map" / "evolution.csv")
    assert found.failed.tolist() == [1]
    assert not list(tmp_path.glob(".map*"))
    (tmp_path / "map" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"error: .*holds mine\.txt"):
        command.main(arguments)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train", "learning_rate: .nan\n", "learning_rate is nan"),
        ("train", "learning_rate: .inf\n", "is inf"),
        ("train", "learning_rate: 0\n", "learning_rate is 0"),
        ("train", "steps: -1\n", "cannot be negative"),
        ("train", "steps: 2020-01-01\n", "date 2020-01-01"),
        ("train", "source: 2020-01-01\n", "date 2020-01-01"),
        ("train", "revision: 12345\n", "in quotes"),
        ("train", "rewards: {correct: .nan}\n", "give a number"),
        ("train", "rewards: {1: 1.0}\n", "is no name"),
        ("train", "- a\n", "name: value"),
        ("train", "low: .nan\n", "low is nan"),
        ("train", "temperature: .nan\n", "temperature is nan"),
        ("grid", "base: {}\nseeds: 0\nconditions: {}\n", "seeds is 0"),
        ("grid", "base: {}\nseeds: [0]\nconditions: {a: 1}\n", "conditions is"),
        ("grid", "base: {}\nseeds: [0]\nconditions: {}\n", "no conditions"),
        ("grid", "base: {}\nseeds: [0.5]\nconditions: {a: {}}\n", "seeds is [0.5]"),
        ("grid", "base: {}\nseeds: [0]\nconditions: {a: {stepz: 1}}\n", "a: unknown parameter 'stepz'"),
        ("grid", "base: []\nseeds: [0]\nconditions: {a: {}}\n", "base is"),
        ("map", "base: {}\nmap_seed: 1\niterations: 0\npopulation: 2\nsigma: 0.1\nrate: 0.1\n", "iterations (0)"),
        ("map", "base: {}\nmap_seed: 1\niterations: 1\npopulation: 2\nsigma: .nan\nrate: 0.1\n", "sigma is nan"),
        ("map", "base: {}\nmap_seed: 1\niterations: 1\npopulation: 3\nsigma: 0.1\nrate: 0.1\n", "even population"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, name, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        command.main([name, str(file), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_beginning_anew_removes_what_a_run_left_and_nothing_else(tmp_path):
    out = tmp_path / "run"
    files.write(out / "log.csv", "mine")
    with pytest.raises(runs.RunError, match=r"no run.json"):
        runs.forget(out)
    assert (out / "log.csv").read_text() == "mine"
    runs.write(out, dict(settings={}, finished=True))
    for name in ("notes.txt", "checkpoints/checkpoint-2/trainer_state.json", "checkpoints/notes.txt"):
        files.write(out / name, "mine")
    with files.replaced(out / "policy") as policy:
        files.write(policy / "config.json", "{}")
    runs.forget(out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "checkpoints/notes.txt",
        "notes.txt",
    ]
