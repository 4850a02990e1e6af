"""Unlearning: edits that make a model forget, what 4-bit storage does to them, and whether anything is left inside.

`forget_set` says what to forget and what to keep; `objectives` and `methods` unlearn it; `mansu` is the method that
should last, with `fisher_information` (what the rest minds) and `magnitude_floor` (past the bin's boundary).
`code_flips` measures what an edit does to codes, `probing` and `cad` what is left inside, `evaluation` everything at
once; `outcomes` reads what many runs gave. `audit` is the command for two checkpoints of a user's own, `wmdp` reads
their multiple-choice sets.
"""
