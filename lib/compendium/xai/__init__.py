"""Explanations of predictions, the metrics that judge them, who judges the metrics, and what audits can see.

`explain` has explainers behind one signature, `relevance` one of them derived anew, `metrics` scores for explanations,
`synthetic` tables whose explanation is known, `nets` small networks to explain. `calls` and `endings` settle what a
model's outputs mean, `tables` what a table may hold. `report(model, X)` puts a user's own model through all of it.
`images` does the same for pictures; `meta` judges the metrics, `planted` compares explanations with looking inside,
`audit` asks what evidence an audit needs.
"""


def __getattr__(name):
    if name == "report":  # loaded when asked for: it brings pandas and matplotlib along
        from compendium.xai.summary import report

        return report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
