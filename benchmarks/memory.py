"""Peak memory of attribution against width, depth, pairs, steps and prompt length, each in a process of its own.

    python benchmarks/memory.py            # writes benchmarks/memory.csv, and says how well the account agrees

Random Llamas of sizes that fit a small machine; what is measured is how far the process grows beyond what it held with
the model loaded. `compendium.attribution.memory` holds the account, fitted to this table; what
patching takes is counted there, not measured.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from compendium.attribution import memory

HERE = Path(__file__).parent / "memory.csv"
BASE = memory.Shape(layers=8, heads=8, head_dim=64, width=512, mlp=1376, vocabulary=8000)
GRID = [
    (BASE, 8, 12, 5),
    *((replace(BASE, layers=layers), 8, 12, 5) for layers in (4, 16, 32)),
    *((replace(BASE, heads=w // 64, width=w, mlp=w * 8 // 3), 8, 12, 5) for w in (256, 1024, 1536)),
    *((BASE, 8, tokens, 5) for tokens in (6, 24, 48)),
    *((BASE, pairs, 12, 5) for pairs in (4, 20)),
    *((BASE, 8, 12, steps) for steps in (1, 2)),
    *((replace(BASE, heads=heads, layers=24), 8, 12, 1) for heads in (16, 32)),
    (replace(BASE, heads=16, head_dim=128, mlp=4096, layers=12), 6, 20, 5),
]


def measured(shape: memory.Shape, pairs: int, tokens: int, steps: int) -> int:
    """Bytes that EAP-IG and circuit evaluation take at worst, in this process."""
    import psutil
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from compendium.attribution import circuits, scores
    from compendium.attribution.decoder import Decoder, Pairs

    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.head_dim,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    clean, corrupt = torch.randint(1, shape.vocabulary, (2, pairs, tokens))
    asked = Pairs(clean, corrupt, torch.full((pairs, 1), 3), torch.full((pairs, 1), 5))
    decoder = Decoder(model, memory=1e6)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak starts anew
    held = psutil.Process().memory_info().rss
    found = scores.eap_ig(decoder, asked, steps=steps)
    circuits.evaluate(decoder, asked, circuits.top_edges(decoder.graph, found, 100))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * peak - held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row", type=int, help="measure one row of the grid, in this process")
    row = parser.parse_args().row
    if row is not None:
        print(measured(*GRID[row]))
        return
    names, rows = ("pairs", "tokens", "steps"), []
    for n, (shape, *given) in enumerate(GRID):
        command = [sys.executable, __file__, "--row", str(n)]
        # Blocks above 1 MB go back to the system when freed, so that the peak is of what is in use.
        surroundings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
        found = int(subprocess.run(command, env=surroundings, check=True, capture_output=True, text=True).stdout)
        sizes = asdict(shape) | dict(zip(names, given, strict=True))
        said = memory.peak(shape, **dict(itertools.islice(sizes.items(), len(sizes) - 3, None)))
        rows.append(sizes | {"bytes": found})
        print(f"{sizes}  {found / 1e6:.0f} MB, account {said / found:.2f} of it", flush=True)
        with open(HERE, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
