"""Policy optimisation: reward a language model's answers, choose what holds it back and which tokens get the credit.

`losses` has the GRPO family, `divergences` and `mirror` what can be added to it per token, `credit` the token weights
from counterfactuals. `tasks` has problems with verifiable answers, and `sandbox` runs the programs a model writes.
All are pure functions of tensors and text; training is TRL's.
"""
