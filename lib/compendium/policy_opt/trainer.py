"""The trainer of a `Config`: `policy_trainer.PolicyTrainer` for the GRPO family, otherwise TRL's own."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from compendium import finite, tokens
from compendium.policy_opt import divergences, losses, mirror, policy, rewards, training_data
from compendium.policy_opt.callbacks import Guard, Look
from compendium.policy_opt.config import Config, ConfigError
from compendium.policy_opt.policy_trainer import PolicyTrainer


def train(trainer, config: Config, checkpoint: str | None = None) -> None:
    """Train to the last step, from a checkpoint if one is named. Raises `finite.Diverged`, and ConfigError when the
    data gave out before the last step or taught nothing at all."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except RuntimeError as error:
        if "probability tensor contains" not in str(error):  # torch's words when completions are drawn from nan
            raise
        raise finite.Diverged(
            f"the policy's probabilities are not finite after step {trainer.state.global_step}: "
            f"lower learning_rate ({config.learning_rate:g})"
        ) from None
    done, losses_seen = trainer.state.global_step, [row["loss"] for row in trainer.state.log_history if "loss" in row]
    if done < config.steps:
        raise ConfigError(
            f"training ended after {done} of {config.steps} steps: {len(trainer.train_dataset)} examples do not fill "
            f"a batch of {config.batch}; lower batch, or give more data"
        )
    if not config.reinforced and not any(losses_seen):  # a reinforced policy's is 0 wherever its rewards are equal
        raise ConfigError(
            f"the loss was 0 at each of {done} steps: no token of the data taught anything; look at its answers"
        )


def load(config: Config):
    """`(model, tokenizer)` to start from, through the run's backend. Raises ModelError or ValueError."""
    if config.model == "fresh":
        return policy.fresh(config.seed)
    if config.backend == "unsloth":
        from unsloth import FastLanguageModel  # after TRL, so that the trainers above are TRL's own

        return FastLanguageModel.from_pretrained(
            config.model, revision=config.revision, dtype=getattr(torch, config.dtype), load_in_4bit=False
        )
    return policy.load(config.model, revision=config.revision, dtype=config.dtype, device=config.device)


def reload(config: Config, folder: Path):
    """`(model, tokenizer)` of the policy that a run of `config` saved in `folder`; raises as `load` does. A reward
    model is read where it is used (`rewards.Learned`), so there it is `(None, None)`."""
    if config.method == "reward":
        return None, None
    model, tokenizer = load(replace(config, model=str(folder), revision=None))
    return model.eval(), tokenizer


def divergence(config: Config):
    """The divergence of a run, (logp, ref_logp) -> per token."""
    if config.divergence != "mirror":
        return divergences.DIVERGENCES[config.divergence]
    if isinstance(config.mirror, str):
        theta = mirror.load(config.mirror)
    else:
        theta = mirror.initial() if config.mirror is None else mirror.initial(config.mirror)
    return partial(mirror.divergence, theta)


def build(config: Config, out: Path):
    """The TRL trainer of a run, which writes checkpoints under `out`. Raises ValueError or ModelError."""
    from datasets import Dataset, disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    model, tokenizer = load(config)
    if config.reinforced:
        tokens.check_left_padding(model)
    rows = training_data.rows(config, model, tokenizer)
    if config.reinforced and len(rows) < config.batch // config.group:
        raise ConfigError(
            f"{len(rows)} problems are too few for one step, which asks {config.batch // config.group} (batch "
            f"{config.batch} / group {config.group}): lower batch, or raise problems"
        )
    options = dict(
        output_dir=str(out),
        max_steps=config.steps,
        gradient_accumulation_steps=config.micro_batches,
        per_device_train_batch_size=config.batch // config.micro_batches,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=config.device == "cpu",
        bf16=config.dtype == "bfloat16" and config.device != "cpu",
        gradient_checkpointing=config.device != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or 500,
        save_total_limit=1,
        model_init_kwargs={"revision": config.revision} if config.revision else None,
    )
    given = dict(processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    if config.lora_rank:
        from peft import LoraConfig

        given["peft_config"] = LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            target_modules="all-linear",
            task_type="SEQ_CLS" if config.method == "reward" else "CAUSAL_LM",
        )
    if config.method == "reward":
        made = RewardTrainer(model.config.name_or_path, RewardConfig(**options), **given)
    elif config.method == "sft":
        made = SFTTrainer(model, SFTConfig(**options, completion_only_loss=True), **given)
    elif config.method == "dpo":
        made = DPOTrainer(model, args=DPOConfig(**options, beta=config.beta), **given)
    else:
        made = _reinforced(config, model, options, given)
    made.remove_callback(PrinterCallback)
    made.add_callback(Guard(config.learning_rate))
    if config.look_every and config.method != "reward":
        looked = training_data.problems(config, config.evaluate[0], config.looked_at)
        made.add_callback(Look(config.look_every, looked, tokenizer, config.asking))
    return made


def _reinforced(config: Config, model, options: dict, given: dict) -> PolicyTrainer:
    functions, weights = rewards.build(config.rewards, device=config.device)
    if config.overlong_buffer:
        functions.append(overlong(config.length, config.overlong_buffer))
        weights.append(1.0)
    args = GRPOConfig(
        **options,
        **losses_of(config),
        num_generations=config.group,
        num_iterations=config.updates,
        temperature=config.temperature,
        max_completion_length=config.length,
        reward_weights=weights,
        mask_truncated_completions=config.mask_overlong,
        beta=0.0 if config.divergence == "none" else config.coefficient,
    )
    return PolicyTrainer(
        model,
        functions,
        args,
        divergence=divergence(config),
        credit=config.credit,
        rounds=config.dynamic_sampling,
        **given,
    )


def losses_of(config: Config) -> dict:
    """TRL's settings for a member of the GRPO family, as the table in `losses` has them."""
    token, sequence = dict(importance_sampling_level="token"), dict(importance_sampling_level="sequence")
    own = {
        "grpo": dict(loss_type="grpo", scale_rewards="group", epsilon=0.2, epsilon_high=0.2, **token),
        "dapo": dict(loss_type="dapo", scale_rewards="group", epsilon=0.2, epsilon_high=0.28, **token),
        "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none", epsilon=0.2, epsilon_high=0.2, **token),
        "gspo": dict(loss_type="grpo", scale_rewards="group", epsilon=3e-4, epsilon_high=4e-4, **sequence),
    }[config.method]
    given = dict(epsilon=config.low, epsilon_high=config.high)
    return own | {name: value for name, value in given.items() if value is not None}


def overlong(length: int, buffer: int):
    """`losses.overlong_penalty` as a reward."""

    def penalty(completion_ids, **_) -> list[float]:
        return losses.overlong_penalty(
            torch.tensor([float(len(ids)) for ids in completion_ids]), length, buffer
        ).tolist()

    penalty.__name__ = "overlong"
    return penalty
