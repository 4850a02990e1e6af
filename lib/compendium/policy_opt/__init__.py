"""Policy optimisation: reward a language model's answers, choose what holds it back and which tokens get the credit.

`losses` has the GRPO family, `divergences` and `mirror` what can be added to it per token, `credit` the token weights
from counterfactuals of the `regions` of an answer. `word_problems`, `benchmarks` and `mbpp` have problems with
verifiable answers, and `sandbox` runs the programs a model writes. Training is TRL's: `trainer` and `callbacks`, `runs`
for one run, `launching` and `plans` for many, `comparisons` for what they show.
"""
