"""Write dvc.yaml from the stage table `pipeline.yaml` and from what each stage's code imports.

    python tools/pipeline.py            # rewrite dvc.yaml
    python tools/pipeline.py --check    # exit 1 unless dvc.yaml is what would be written

A stage of the table has `notebook` (its path under notebooks/, without ending) or `command` with `entry`, the modules
that the command runs. Every module of the library that these import, directly or through others, becomes a
dependency, so that a change of code makes those stages stale that run it, and no others. Also: `desc`; `data`, other
inputs; `extras`, requirement files beside requirements.txt; `outs`, outputs of a command; `more_outs`, outputs of a
notebook beside its folder of figures; `matrix`; `params` of a command. Executed copies are not committed, so that a
fresh clone runs every notebook; units are, and it takes them for what dvc.lock says they are.
"""

import io
import sys
from pathlib import Path

import nbformat
from ruamel.yaml import YAML

from compendium.dependencies import closure, imported, module

ROOT = Path(__file__).parents[1]
TABLE, WRITTEN = ROOT / "pipeline.yaml", ROOT / "dvc.yaml"
PINS = ("requirements.txt", "constraints.txt")  # a new environment makes every result stale
HEAD = (
    "# Written by `python tools/pipeline.py` from pipeline.yaml and the imports of the code: edit that table instead.\n"
)


def files(start) -> list[str]:
    """These modules' files and all that they import, as paths from the root."""
    return [path.relative_to(ROOT).as_posix() for path in closure(start)]


def stage(spec: dict) -> dict:
    """A stage as dvc.yaml has it. Raises ValueError for a key the table does not know."""
    known = {"desc", "notebook", "command", "entry", "data", "extras", "outs", "more_outs", "matrix", "params"}
    if strange := set(spec) - known:
        raise ValueError(f"pipeline.yaml knows no {sorted(strange)[0]!r}: choose from {', '.join(sorted(known))}")
    pins = [*PINS, *(f"requirements-{extra}.txt" for extra in spec.get("extras", ()))]
    kept = {"cache": False, "persist": True}  # committed, and left in place when a run fails
    made = {"desc": spec["desc"]} | ({"matrix": spec["matrix"]} if "matrix" in spec else {})
    if "notebook" not in spec:
        code = files({module(name) for name in spec["entry"]})
        params = {"params": [{path: None} for path in spec["params"]]} if "params" in spec else {}
        outs = [out if isinstance(out, dict) else {out: kept} for out in spec["outs"]]
        return made | {"cmd": spec["command"], "deps": [*code, *spec.get("data", ()), *pins], **params, "outs": outs}
    name, notebook = spec["notebook"], f"notebooks/{spec['notebook']}.ipynb"
    cells = nbformat.read(ROOT / notebook, as_version=4).cells
    code = files(imported("\n".join(cell.source for cell in cells if cell.cell_type == "code")))
    values = f"notebooks/{name}.yaml"
    return made | {
        "cmd": f"python -m compendium.run {notebook} {values}",
        "deps": [notebook, *code, *spec.get("data", ()), *pins],
        "params": [{values: None}],
        "outs": [
            *({out: kept} for out in (f"executed/{name}.ipynb", f"figures/{name}", *spec.get("more_outs", ()))),
            {f"executed/{name}.ran": {"cache": False}},  # git ignores it: in a fresh clone every notebook runs
        ],
    }


def written() -> str:
    """The text of dvc.yaml."""
    yaml = YAML()
    yaml.width, yaml.default_flow_style = 4096, False
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", ""))
    table = YAML(typ="safe", pure=True).load(TABLE.read_text(encoding="utf-8"))
    made = {"stages": {name: stage(spec) for name, spec in table["stages"].items()}}
    out = io.StringIO()
    yaml.dump(made | {name: table[name] for name in ("metrics", "plots") if name in table}, out)
    return HEAD + out.getvalue()


def main(arguments: list[str]) -> int:
    text = written()
    if "--check" in arguments:
        return int(WRITTEN.read_text(encoding="utf-8") != text)
    WRITTEN.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
