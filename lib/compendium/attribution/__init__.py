"""Attribution: which heads, MLPs and connections of a language model carry a behaviour, and changing those alone.

`graph` names the parts, `decoder` runs a model so that every connection can be read and replaced, `scores` ranks nodes
and edges, `circuits` cuts a model down to some of them and measures what is left, `tasks` makes contrast pairs, `study`
compares the methods and `draw` the circuits.

`policies` holds prompts that a model should or should not refuse, `refusal` measures whether it does, `training`
changes weights so that it does, `steering` is the run-time alternative, `selective` compares them.
"""
