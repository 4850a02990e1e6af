"""What watches a training: looks at the held-out problems, and a guard against divergence."""

from transformers import TrainerCallback

from compendium import finite
from compendium.policy_opt import policy


class Look(TrainerCallback):
    """Asks problems every `every` steps, greedily, and puts the summary into the trainer's log history,
    which checkpoints keep. Draws no random numbers."""

    def __init__(self, every: int, problems: list, tokenizer, options: dict):
        self.every, self.problems, self.tokenizer, self.options = every, problems, tokenizer, options

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step % self.every == 0:
            answers = policy.ask(model, self.tokenizer, self.problems, **self.options)
            state.log_history.append({"step": state.global_step, **policy.summary(answers)})


class Guard(TrainerCallback):
    """Stops a run that diverges, before the step's checkpoint is written: transformers alone would go on with nan as
    weights, and log a loss of 0 (PolicyTrainer's and TRL's own alike). Draws no random numbers."""

    def __init__(self, learning_rate: float):
        self.lower = f"learning_rate ({learning_rate:g}), or max_grad_norm"

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        gradients = (p.grad for p in model.parameters() if p.grad is not None)
        finite.check("a gradient", gradients, step=state.global_step + 1, lower=self.lower)

    def on_step_end(self, args, state, control, model=None, **_):
        finite.check("a weight", model.parameters(), step=state.global_step, lower=self.lower)

    def on_log(self, args, state, control, logs=None, **_):
        for name in ("loss", "grad_norm"):
            if name in (logs or {}):
                finite.check(f"the {name}".replace("_", " "), logs[name], step=state.global_step, lower=self.lower)
