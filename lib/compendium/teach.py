"""Sliders of the walkthroughs, where moving one teaches more than a picture does."""

import os


def slide(draw, **choices) -> None:
    """Call draw(name=value, ...) again whenever a slider moves; draw shows a figure.

    choices: name=(values, start). Where nobody can slide, as in a run by a command or without ipywidgets, the figure
    above stands for it, and a line says so.
    """
    if not os.environ.get("COMPENDIUM_STATIC"):
        try:
            from ipywidgets import SelectionSlider, interact
        except ImportError:
            pass
        else:
            name = lambda key: key.replace("_", " ")
            interact(
                draw,
                **{
                    key: SelectionSlider(options=list(values), value=start, description=name(key))
                    for key, (values, start) in choices.items()
                },
            )
            return
    told = ", ".join(key.replace("_", " ") for key in choices)
    print(f"In Jupyter, with ipywidgets, this cell has a slider for: {told}.")
