"""What a run trains on: rows for TRL's data sets, from stories, files in GSM8K or MBPP format, or pairs.

`problems` gives the problems of a split and `rows` what the trainer of a method reads: `prompt` with the answer or the
tests beside it for rewards, `prompt` and `completion` for SFT, `prompt`, `chosen` and `rejected` for DPO and reward
models. Pairs may come from a file; otherwise the model that is to be trained answers each problem several times, and a
right and a wrong answer to the same problem make a pair.
"""

from dataclasses import asdict
from pathlib import Path

from compendium import records
from compendium.paths import relative
from compendium.policy_opt import gsm8k, mbpp, policy, word_problems
from compendium.policy_opt.config import Config, ConfigError


def problems(config: Config, split: str, n: int) -> list:
    """`n` problems, or as many as there are, of a split. A file has no splits: its first `config.problems` items are
    the training split, and any other split is the items after them. `hasty` is for the training split alone.

    Raises ValueError as `word_problems` does, and ConfigError for a file that has nothing left.
    """
    if config.task in ("stories", "pairs"):
        return word_problems.problems(
            n, split, seed=config.task_seed, hasty=config.hasty if split == config.split else 0.0
        )
    read = {"gsm8k": gsm8k.gsm8k, "mbpp": mbpp.mbpp}[config.task]
    given = dict(revision=config.source_revision, split=split)
    found = read(config.source, **given) if config.source else read(**given)
    if config.source and Path(config.source).is_file() and split != config.split:
        found = found[config.problems :]
        if not found:
            raise ConfigError(
                f"{relative(config.source)} holds no more than the {config.problems} problems for training: lower "
                "problems, or say evaluate: []"
            )
    return found[:n]


def held_out(config: Config) -> dict[str, list]:
    """The problems asked after training, by split. Raises as `problems` does."""
    return {split: problems(config, split, config.evaluated) for split in config.evaluate}


def rows(config: Config, model, tokenizer) -> list[dict]:
    """The training rows of a run. Raises ConfigError, or ValueError as `word_problems` does."""
    if config.task == "pairs":
        return read_pairs(config.source)[: config.problems]
    found = problems(config, config.split, config.problems)
    asked = policy.prompts(
        tokenizer, [problem.question for problem in found], chat=config.chat, instruction=config.instruction
    )
    if config.method in ("dpo", "reward"):
        return pairs(config, model, tokenizer, asked, found)
    if config.method == "sft":
        answer = lambda text: [{"role": "assistant", "content": text}] if config.chat else text
        return [dict(prompt=p, completion=answer(problem.solution)) for p, problem in zip(asked, found, strict=True)]
    beside = lambda problem: {k: v for k, v in asdict(problem).items() if k in ("answer", "tests", "setup")}
    return [dict(prompt=p, **beside(problem)) for p, problem in zip(asked, found, strict=True)]


def pairs(config: Config, model, tokenizer, asked: list, found: list) -> list[dict]:
    """One pair for each problem that the model answers rightly and wrongly in `config.samples` tries."""
    made = policy.generate(
        model,
        tokenizer,
        asked,
        samples=config.samples,
        temperature=config.temperature,
        length=config.length,
        seed=config.seed,
    )
    texts = tokenizer.batch_decode(made, skip_special_tokens=True)
    wrap = lambda text: [{"role": "assistant", "content": text}] if config.chat else text
    rows = []
    for i, (prompt, problem) in enumerate(zip(asked, found, strict=True)):
        tries = dict.fromkeys(texts[i * config.samples : (i + 1) * config.samples])
        right = [text for text in tries if policy.right(text, problem)]
        wrong = [text for text in tries if text not in right]
        if right and wrong:
            rows.append(dict(prompt=prompt, chosen=wrap(right[0]), rejected=wrap(wrong[0])))
    if not rows:
        raise ConfigError(f"none of {len(found)} problems got both right and wrong answers: no pairs to learn from")
    return rows


def read_pairs(source: str) -> list[dict]:
    """Pairs from a JSON-lines file. Raises ConfigError naming the first line that is not one."""
    rows, names = [], ("prompt", "chosen", "rejected")
    try:
        found = records.lines(source)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for i, item in found:
        if not isinstance(item, dict) or not all(
            item.get(name) and isinstance(item[name], str | list) for name in names
        ):
            raise ConfigError(f"{relative(source)}, line {i}: it needs prompt, chosen and rejected")
        if item["chosen"] == item["rejected"]:
            raise ConfigError(f"{relative(source)}, line {i}: chosen and rejected are the same: nothing can be learned")
        rows.append({name: item[name] for name in names})
    if not rows:
        raise ConfigError(f"{relative(source)} holds no pairs")
    return rows
