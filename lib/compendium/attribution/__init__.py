"""Attribution: which heads, MLPs and connections of a language model carry a behaviour, and changing those alone.

`graph` names the parts, `decoder` runs a model so that every connection can be read and replaced, `scores` ranks nodes
and edges, `circuits` cuts a model down to some of them and measures what is left, `contrast_pairs` makes the prompts,
`draw` the pictures. `refusal` is a package of its own: prompts, measure, examples, objectives and steering.
"""
