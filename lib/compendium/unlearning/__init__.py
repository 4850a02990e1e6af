"""Unlearning: edits that make a model forget, what 4-bit storage does to them, and whether anything is left inside.

`domains` says what to forget and what to keep; `objectives` and `methods` unlearn it, `train` where steps are watched;
`mansu` is the method that should last, with `retain` (what the rest minds) and `floor` (past the bin's boundary).
`updates` measures what an edit does to codes, `mechanism` and `cad` what is left inside, `study` everything at once.
`audit` is the command for two checkpoints of a user's own, `hazard` reads their multiple-choice sets.
"""
