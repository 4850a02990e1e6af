"""Selective refusal: a model that declines one category of request, by a change of a circuit's weights (C-Δθ).

`prompt_sets` holds prompts that it should or should not refuse, `measure` asks whether it does, `examples` is what it
learns from and is held to, `objectives` changes weights so that it does, `steering` is the run-time alternative.
"""
