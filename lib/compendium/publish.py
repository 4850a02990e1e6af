"""What makes an executed copy one to read: its figures light and described, its numbers filled in, a word on how it was
made. The notebooks' sources keep two marks for that, as tags of markdown cells:

- `figures`, under the code cell that shows them: `![what is to be seen](path)` and a caption, once or several times.
  In the copy the pictures themselves stand above, so only the captions stay;
- `reading`: prose whose numbers are references (see `readings`).
"""

import base64
import io
import re
from pathlib import Path

from compendium import readings, settings

PNG = "image/png"
COLOURS = 128
IMAGE = re.compile(r"^!\[(?P<alt>[^\]]*)\]\((?P<path>[^)]+)\)\s*$", re.MULTILINE)
SHORT = "published"  # tag of the cell that says how the copy was made


def lighten(png: bytes, colours: int = COLOURS) -> bytes:
    """The picture in a palette of at most so many colours, on white; as it was where that is no lighter."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, "white")
        flat.paste(rgba, mask=rgba.getchannel("A"))
    out = io.BytesIO()
    flat.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue() if out.tell() < len(png) else png


def pictures(cell) -> list:
    """The outputs of a code cell that are pictures."""
    return [o for o in cell.get("outputs", []) if PNG in o.get("data", {})]


def captions(source: str) -> list[tuple[str, str, str]]:
    """(what is to be seen, path, caption) of each picture in a cell tagged `figures`."""
    found = list(IMAGE.finditer(source))
    ends = [m.start() for m in found[1:]] + [len(source)]
    return [(m["alt"], m["path"], source[m.end() : end].strip()) for m, end in zip(found, ends, strict=True)]


def publish(ran, source: str, folder: Path | None, other: dict) -> list[str]:
    """Turn an executed and normalised notebook into the copy that is read, in place; what could not be filled in.

    source: the notebook's path from the root; folder: its results, or None; other: the parameters whose values are not
    those that its text was written for, which the copy then says.
    """
    missed, above = [], None
    for cell in ran.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            above = cell
            for output in pictures(cell):
                light = lighten(base64.b64decode(output.data[PNG]))
                output.data[PNG] = base64.b64encode(light).decode() + "\n"
        elif "figures" in tags and above is not None and pictures(above):
            told = captions(cell.source)
            for output, (alt, _, _) in zip(pictures(above), told, strict=False):
                output.metadata = {PNG: {"alt": alt}}
            cell.source = "\n\n".join(caption for _, _, caption in told)
        if "reading" in tags and folder is not None:
            try:
                cell.source = readings.fill(cell.source, folder)
            except readings.ReadingError as error:
                missed.append(str(error))
    first = "reading" in ran.cells[1].metadata.get("tags", []) if len(ran.cells) > 1 else False
    ran.cells.insert(2 if first else 1, _made(source, other))
    return missed


def _made(source: str, other: dict):
    import nbformat

    up = "../" * source.count("/")
    text = f"*Executed copy of [{source}]({up}{source}); `python -m compendium.run {source}"
    text += f" {source.removesuffix('.ipynb')}.yaml` makes it.*"
    if other:
        values = ", ".join(f"`{name} = {value!r}`" for name, value in other.items())
        text += f"\n\n**Run with other values than those its text was written for:** {values}."
    cell = nbformat.v4.new_markdown_cell(text, id="cell-made")
    cell.metadata = {"tags": [SHORT]}
    return cell


def other_values(path: Path, declared: dict, values: dict) -> dict:
    """Of a run's parameters, those that differ from the notebook's own YAML, whose results its text describes."""
    own = path.with_suffix(".yaml")
    published = declared | (settings.read(own) if own.exists() else {})
    return {name: value for name, value in values.items() if name in published and published[name] != value}
