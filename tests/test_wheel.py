"""The library without the clone: a wheel with its data, in an empty folder."""

import subprocess
import sys
import zipfile

import pytest

from compendium.paths import ROOT

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
sys.path = [p for p in sys.path if not p.endswith("/lib")]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
from compendium import PFNClassifier, audit, losses, xai
import compendium, numpy as np, pandas as pd, torch
from compendium import facts, paths
from transformers import LlamaConfig, LlamaForCausalLM
assert compendium.__file__.startswith(sys.argv[1]) and not paths.CLONE, compendium.__file__
assert len(facts.load()) > 100
x = np.random.default_rng(0).normal(size=(80, 3))
y = (x[:, 0] > 0).astype(int)
model = PFNClassifier(members=1).fit(x[:60], y[:60])
assert (model.predict(x[60:]) == y[60:]).mean() > 0.7
assert torch.isfinite(losses.group_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), 4)).all()
print("all there")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "Could not find a version" in done.stderr or "Failed to establish" in done.stderr:
        pytest.skip("the build backend cannot be had: no package index")
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_library_and_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"compendium/units.py", "compendium/data/facts.csv", "compendium/data/tabular/pfn.safetensors"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "notebooks"))]


def test_the_library_works_in_an_empty_folder(wheel, tmp_path):
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all there" in done.stdout
    assert not list((tmp_path / "empty").iterdir())
