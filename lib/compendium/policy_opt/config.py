"""One run as a flat YAML file: what to train, on what, for which reward, held back by what, and how it is measured.

    method: dr_grpo
    model: data/policies/start/policy
    rewards: {correct: 1.0}
    divergence: prob_l2
    coefficient: 0.1
    steps: 50

Every key has a type and a default, listed below; an unknown key is refused with the nearest one, a value that cannot be
right with what would be. `python -m compendium.policy_opt train FILE --out FOLDER` runs it, and `runs` says what it
leaves there. Paths are taken from the present folder, or else from the repository's root.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

from compendium import formats, settings
from compendium.paths import ROOT
from compendium.policy_opt import credit, divergences, losses, word_problems

METHODS = ("sft", "dpo", "reward", *losses.LOSSES)
BACKENDS = "trl", "unsloth"
TASKS = "stories", "gsm8k", "mbpp", "pairs"
SCHEDULES = "linear", "constant", "cosine"
UNBOUNDED = "max_grad_norm", "high"  # where infinity means no bound


class ConfigError(ValueError):
    """Settings that cannot be run; the message says which and what to write instead."""


@dataclass(frozen=True)
class Config:
    """The settings of one run."""

    method: str = "dr_grpo"  # sft; dpo and reward, from pairs; grpo, dapo, dr_grpo, gspo
    backend: str = "trl"
    python: str | None = None  # interpreter of the backend's own environment, if it is not this one
    model: str = "data/policies/start/policy"  # a folder, "embedded", a hub id, or "fresh": the tiny policy, untrained
    revision: str | None = None  # 40-digit commit of a hub model
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    task: str = "stories"  # gsm8k and mbpp: files in these formats, or the hub's; pairs: prompt, chosen, rejected
    task_seed: int = 0  # of the stories drawn, to train on and to be asked
    hasty: float = 0.0  # share of the long training stories whose solution stops a calculation too early
    source: str | None = None  # a JSON-lines file (items after the first `problems` are held out), or a hub id
    source_revision: str | None = None
    split: str = "train"
    problems: int = 512  # for training
    chat: bool = False  # questions as messages, through the tokenizer's template
    instruction: str = ""  # after every question
    samples: int = 8  # answers to each problem, of which right and wrong ones make pairs for dpo and reward

    steps: int = 60
    batch: int = 64  # completions or examples an optimiser step
    micro_batches: int = 1  # parts it is cut into, to save memory
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup: int = 0  # steps
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 0  # 0: all weights are trained
    save_every: int = 0  # steps between checkpoints that an interrupted run resumes from; 0: none

    group: int = 8  # completions of one prompt
    updates: int = 1  # of the weights, with each batch of completions
    temperature: float = 1.0
    length: int = 64  # longest completion, tokens
    low: float | None = None  # clip range; None: the method's own
    high: float | None = None
    rewards: dict = field(default_factory=lambda: {"correct": 1.0})  # name: weight, see `rewards`
    overlong_buffer: int = 0  # tokens before `length` from which a penalty grows to -1; 0: none
    mask_overlong: bool = False  # completions that were cut off teach nothing
    dynamic_sampling: int = 0  # most rounds of drawing other prompts for those whose rewards are equal; 0: off
    divergence: str = "none"
    coefficient: float = 0.0  # of the divergence
    mirror: int | str | None = None  # mirror map: seed of a random one (None: 42), or a file written by `mirror.save`
    credit: str = "vanilla"  # token weights
    beta: float = 0.1  # of dpo

    look_every: int = 0  # steps between looks at accuracy during training; 0: none
    looked_at: int = 128  # problems of the first split in `evaluate`
    evaluate: list = field(default_factory=lambda: ["validation"])  # splits asked after training
    evaluated: int = 256  # problems of each
    formats: list = field(default_factory=list)  # storage formats in which they are asked again, such as nf4

    @property
    def reinforced(self) -> bool:
        """Whether the method learns from rewards of its own completions."""
        return self.method in losses.LOSSES

    @property
    def asking(self) -> dict:
        """The arguments of `policy.ask` that these settings decide."""
        return dict(length=self.length, chat=self.chat, instruction=self.instruction)

    def but(self, **changes) -> "Config":
        """These settings with some changed, checked."""
        return make(asdict(self) | changes)


def _choose(name: str, value, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        close = get_close_matches(str(value), known, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"
        raise ConfigError(f"{name}: unknown {value!r}: {hint}")


def make(given: dict) -> Config:
    """A checked Config from names and values. Raises ConfigError."""
    declared = asdict(Config())
    try:
        settings.validate(given, declared)
    except settings.SettingsError as error:
        raise ConfigError(str(error)) from None
    config = Config(**given)
    for name, known in {
        "method": METHODS,
        "backend": BACKENDS,
        "task": TASKS,
        "schedule": SCHEDULES,
        "credit": credit.MODES,
        "divergence": [*divergences.DIVERGENCES, "mirror"],
    }.items():
        _choose(name, getattr(config, name), known)
    for name in config.formats:
        _choose("formats", name, formats.FORMATS)
    if config.task in ("stories", "pairs"):
        for split in [config.split, *config.evaluate]:
            _choose("split" if split == config.split else "evaluate", split, word_problems.SPLITS)
    for name, value in asdict(config).items():
        if type(value) in (int, float) and value < 0:
            raise ConfigError(f"{name} is {value:g}: it cannot be negative")
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and name not in UNBOUNDED)):
            raise ConfigError(f"{name} is {value:g}: give a finite number")
    for name in ("python", "revision", "source", "source_revision"):
        value = getattr(config, name)
        if not isinstance(value, str | None):
            raise ConfigError(f"{name} is {value!r} ({type(value).__name__}): give a text, in quotes, or leave it out")
    if not config.learning_rate:
        raise ConfigError("learning_rate is 0: nothing would be learned, give a positive number")
    for name in (
        "steps",
        "batch",
        "micro_batches",
        "group",
        "updates",
        "length",
        "problems",
        "samples",
        "threads",
        "looked_at",
        "evaluated",
    ):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}: it must be at least 1")
    if config.hasty > 1:
        raise ConfigError(f"hasty is {config.hasty:g}: give a share, from 0 to 1")
    for name in ("low", "high"):
        value = getattr(config, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"{name} is {value!r}: give a number, or leave it out for the method's own")
    for name, weight in config.rewards.items():
        if not isinstance(name, str):
            raise ConfigError(f"rewards: {name!r} is no name: write it in quotes")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(f"rewards: the weight of {name!r} is {weight!r}: give a number")
    if not config.temperature:
        raise ConfigError("temperature is 0: completions would all be the same, say 1.0 or less")
    if config.look_every and not config.evaluate:
        raise ConfigError("look_every without evaluate: name the split to look at")
    if config.batch % config.micro_batches:
        raise ConfigError(f"batch {config.batch} cannot be cut into {config.micro_batches} equal micro_batches")
    if config.task == "pairs" and not config.source:
        raise ConfigError("task pairs needs a source: a JSON-lines file with prompt, chosen and rejected")
    if config.task == "pairs" and config.method not in ("dpo", "reward"):
        raise ConfigError(f"task pairs is for dpo and reward, not {config.method}")
    if config.reinforced:
        _check_reinforced(config)
    if config.model == "fresh" and config.method != "sft":
        raise ConfigError("model fresh knows nothing yet: train it with method: sft first")
    paths = {name: _located(getattr(config, name)) for name in ("model", "source", "mirror")}
    return replace(config, **paths, rewards={_located(name): weight for name, weight in config.rewards.items()})


def _check_reinforced(config: Config) -> None:
    if config.group < 2:
        raise ConfigError("group is 1: a completion has no advantage over itself, say 2 or more")
    if config.batch % config.group:
        raise ConfigError(f"batch {config.batch} is no multiple of group {config.group}")
    if config.divergence == "none" and config.coefficient:
        raise ConfigError("a coefficient without a divergence: name one, or say coefficient: 0")
    if config.mirror is not None and type(config.mirror) not in (int, str):
        raise ConfigError(f"mirror is {config.mirror!r}: give a seed or a file")
    if config.divergence == "mirror" and isinstance(config.mirror, str) and not Path(_located(config.mirror)).is_file():
        raise ConfigError(f"mirror: there is no file {config.mirror!r}")
    if config.save_every % config.updates:
        raise ConfigError(f"save_every {config.save_every} is no multiple of updates {config.updates}")
    if config.credit != "vanilla" and config.method == "gspo":
        raise ConfigError("credit cannot act through gspo's ratio of whole completions: use grpo, dapo or dr_grpo")
    if config.overlong_buffer > config.length:
        raise ConfigError(f"overlong_buffer {config.overlong_buffer} is longer than length {config.length}")
    if not config.rewards:
        raise ConfigError("no rewards: name at least one, such as {correct: 1.0}")
    for name, judged in {"correct": ("stories", "gsm8k"), "programs": ("mbpp",)}.items():
        if name in config.rewards and config.task not in judged:
            raise ConfigError(f"reward {name!r} judges {' and '.join(judged)}, not {config.task}: name another")


def _located(name):
    """A path as it is from here, or else from the repository's root; anything else unchanged."""
    if isinstance(name, str) and not Path(name).exists() and (ROOT / name).exists():
        return str(ROOT / name)
    return name


def load(path: Path, **changes) -> Config:
    """Settings from a YAML file, with some changed. Raises ConfigError, and SettingsError where it cannot be read."""
    return make(settings.read(Path(path)) | changes)


def differences(one: Config, other: Config) -> list[str]:
    """Names of the settings in which two runs differ."""
    return [f.name for f in fields(Config) if getattr(one, f.name) != getattr(other, f.name)]
