"""What the notebooks read of the runs, against counting by hand."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from compendium.unlearning import properties, runs


def answer(method, weights, kind, subject, correct, seed=0):
    return dict(
        domain="d", seed=seed, method=method, weights=weights, kind=kind, relation="r", subject=subject, correct=correct
    )


ANSWERS = pd.DataFrame(
    [
        *(answer("none", "float32", kind, s, 1) for kind in ("forget", "near", "far") for s in "ab"),
        *(answer("none", "nf4", "forget", s, c) for s, c in (("a", 1), ("b", 0))),
        *(answer("M", "float32", "forget", s, 0) for s in "ab"),
        *(answer("M", "float32", "near", s, c) for s, c in (("a", 1), ("b", 0), ("b", 1), ("a", 1))),
        *(answer("M", "float32", "far", s, 1) for s in "ab"),
        *(answer("M", "nf4", "forget", s, c) for s, c in (("a", 1), ("b", 0))),
    ]
)
EDITED = pd.DataFrame(
    {"domain": "d", "seed": 0, "method": ["none", "M"], "perplexity": [10.0, 15.0], "edited": [0, 0.1]}
)


def test_properties():
    found = properties.table(ANSWERS, EDITED).set_index("method")
    ours = found.loc["M"]
    assert ours["forget"] == 0
    assert ours["near"] == 0.75
    assert ours["near change"] == -0.25
    assert ours["retained change"] == -0.125
    assert ours["nf4 gap"] == 0.5
    assert found.loc["none", "nf4 gap"] == -0.5
    assert ours["perplexity ratio"] == 1.5
    assert ours["edited"] == 0.1


def test_changes_by_fact_average_over_wordings():
    found = properties.by_fact(ANSWERS, "M", kinds=("near",))
    assert found.to_dict() == {("d", "r", "a"): 0.0, ("d", "r", "b"): -0.5}


def test_folders_and_missing_tables(tmp_path):
    assert runs.folder("country_capital, Europe", 2).name == "country_capital-Europe-2"
    with pytest.raises(FileNotFoundError, match="dvc repro 02-runs"):
        properties.read("answers", tmp_path)
    for seed in (0, 1):
        folder = tmp_path / f"r-d-{seed}"
        folder.mkdir()
        EDITED.assign(domain="r, d", seed=seed).to_csv(folder / "facts.csv", index=False)
        ANSWERS.drop(columns=["domain", "seed"]).to_csv(folder / "answers.csv", index=False)
    found = properties.read("answers", tmp_path)
    assert len(found) == 2 * len(ANSWERS)
    assert set(found.domain) == {"r, d"}
    assert set(found.seed) == {0, 1}


@pytest.mark.parametrize("processes", [1, 2])
def test_everywhere_keeps_the_order(processes):
    assert runs.everywhere(pow, [(2, 3), (3, 2), (5, 1)], processes=processes) == [8, 9, 5]


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
from test_runs import stay
from compendium.unlearning import runs
if __name__ == "__main__":
    runs.everywhere(stay, [({folder!r}, 0), ({folder!r}, 1)], processes=2)
"""


def stay(folder, i):
    Path(folder, str(i)).write_text(str(os.getpid()))
    time.sleep(120)


def test_workers_leave_with_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    wait(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"), 90)
    parent.kill()
    parent.wait()
    workers = [int((tmp_path / name).read_text()) for name in "01"]
    wait(lambda: not any(alive(worker) for worker in workers), 30)


def wait(done, seconds):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(0.2)


def alive(pid) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")
