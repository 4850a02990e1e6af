"""What `audit` found, as a picture and as text."""

from compendium import facts, report


def draw(found: dict):
    """Figure: what is left of both kinds of facts, in the base, the edited and the stored model, as far as judged."""
    import matplotlib.pyplot as plt

    report.style()
    m = found["measured"]
    stored = [name.removesuffix(" gap") for name in m if name.endswith(" gap")]
    columns = {"base": ", base", **{f"base, {fmt}": f", base in {fmt}" for fmt in stored}, "edited": ""}
    columns |= {f"edited, {fmt}": f", {fmt}" for fmt in stored}
    fig, ax = plt.subplots(figsize=(3.5 + 0.9 * len(columns), 3.4))
    for i, kind in enumerate(("forget", "retain")):
        if kind not in m:
            continue
        places = [j + 0.38 * (i - 0.5) for j in range(len(columns))]
        ax.bar(places, [m[kind + tail] for tail in columns.values()], 0.36, label=f"facts to {kind}", color=f"C{i}")
    ax.axhline(facts.CHANCE, color="0.5", lw=1, ls="--")
    ax.annotate(
        "chance",
        (1, facts.CHANCE),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        color="0.4",
    )
    ax.set(xticks=range(len(columns)), xticklabels=columns, ylim=(0, 1.02), ylabel="right answers")
    words = {True: "{}", False: "not {}", None: "{} not judged"}
    ax.set_title(", ".join(words[holds].format(name) for name, holds in found["properties"].items()).capitalize())
    ax.legend(loc="center left", bbox_to_anchor=(1.12, 0.5))
    return fig


def summary(found: dict) -> str:
    """The findings as text: a line a property, a line a number, and what was not judged and why."""
    lines, reasons = [], dict(found["not judged"])
    for name, holds in found["properties"].items():
        doubt = " (its interval includes the limit: more facts would settle it)"
        said = f"not judged: {reasons.pop(name)}" if holds is None else "yes" if holds else "no"
        lines.append(f"{name:14} {said}{doubt * (found['settled'][name] is False)}")
    for name, value in found["measured"].items():
        low, high = found["intervals"].get(name, (None, None))
        lines.append(f"  {name:32} {value:9.4g}" + (f"   [{low:.3g}, {high:.3g}]" if low is not None else ""))
    if "inside read by" in found:
        lines.append(f"  {'inside read by':32} {found['inside read by']}")
    lines += [f"  {name:32} not judged: {reason}" for name, reason in reasons.items()]
    if missing := [name for name, holds in found["properties"].items() if holds is None]:
        lines.append(f"{len(missing)} of {len(found['properties'])} properties not judged: {', '.join(missing)}")
    return "\n".join(lines)
