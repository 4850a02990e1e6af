"""Other people's networks: what is asked of their packages, and what is said when one is missing."""

import sys
from types import SimpleNamespace

import pytest

from compendium.tabular import backends, suite

CLASSES = {"tabicl": "TabICLClassifier", "tabpfn": "TabPFNClassifier"}


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_package_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(suite.MissingExtra, match=f"pip install {name}=="):
        getattr(backends, name)()


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_checkpoint_is_not_fetched(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="give the file itself"):
        getattr(backends, name)(tmp_path / "none.ckpt")


@pytest.mark.parametrize("name", CLASSES)
def test_a_path_is_handed_over_and_nothing_else_is_loaded(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(**{CLASSES[name]: lambda **given: given}))
    file = tmp_path / "weights.ckpt"
    file.touch()
    given = getattr(backends, name)(file, members=3, seed=5)
    assert given["model_path"] == str(file)
    assert (given["n_estimators"], given["random_state"], given["device"]) == (3, 5, "cpu")
    assert given.get("allow_auto_download") is not True
    assert "model_path" not in getattr(backends, name)()
