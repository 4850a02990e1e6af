"""What the notebooks read of the runs, against counting by hand."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compendium.unlearning import outcomes
from compendium.unlearning.studies import unlearned


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
    found = outcomes.table(ANSWERS, EDITED).set_index("method")
    ours = found.loc["M"]
    assert ours["forget"] == 0
    assert ours["near"] == 0.75
    assert ours["near change"] == -0.25
    assert ours["retained change"] == -0.125
    assert ours["nf4 gap"] == 0.5
    assert found.loc["none", "nf4 gap"] == -0.5
    assert ours["perplexity ratio"] == 1.5
    assert ours["edited"] == 0.1


def test_shares_changes_and_gaps_are_one_value_a_fact():
    changed = outcomes.changes(ANSWERS, "M", ["near"])
    assert changed.to_dict() == {("d", 0, "r", "a"): 0.0, ("d", 0, "r", "b"): -0.5}
    assert outcomes.gaps(ANSWERS, "M", "nf4").to_list() == [1.0, 0.0]
    later = pd.concat([ANSWERS, ANSWERS[ANSWERS.method == "none"].assign(seed=1)])
    assert outcomes.changes(later, "M", ["near"]).equals(changed), "a seed without the method counts for nothing"


def grid(table, domain="d"):
    index = [(domain, seed, "r", subject) for seed in range(table.shape[1]) for subject in range(table.shape[0])]
    names = ["domain", "seed", "relation", "subject"]
    return pd.Series(table.T.ravel(), pd.MultiIndex.from_tuples(index, names=names)).dropna()


def test_intervals_resample_facts_and_seeds():
    rng = np.random.default_rng(0)
    facts = rng.normal(size=(200, 1))
    alike = grid(np.repeat(facts, 3, axis=1))
    mean, low, high = outcomes.interval(alike)
    assert mean == pytest.approx(facts.mean())
    error = facts.std() / np.sqrt(200)  # three runs of the same answers are worth one
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    seeds = rng.normal(size=(1, 30))
    mean, low, high = outcomes.interval(grid(np.repeat(seeds, 50, axis=0)))
    assert high - low == pytest.approx(2 * 1.96 * seeds.std() / np.sqrt(30), rel=0.1)
    holes = np.where(rng.random((40, 3)) < 0.3, np.nan, 1.0)
    both = pd.concat([grid(holes), grid(np.zeros((10, 3)), "e")])
    assert outcomes.interval(both) == (0.5, 0.5, 0.5)


def test_folders_and_missing_tables(tmp_path):
    assert unlearned.folder("country_capital, Europe", 2).name == "country_capital-Europe-2"
    with pytest.raises(FileNotFoundError, match="dvc repro 02-unlearned"):
        outcomes.read("answers", tmp_path)
    for seed in (0, 1):
        folder = tmp_path / f"r-d-{seed}"
        folder.mkdir()
        EDITED.assign(domain="r, d", seed=seed).to_csv(folder / "facts.csv", index=False)
        ANSWERS.drop(columns=["domain", "seed"]).to_csv(folder / "answers.csv", index=False)
    found = outcomes.read("answers", tmp_path)
    assert len(found) == 2 * len(ANSWERS)
    assert set(found.domain) == {"r, d"}
    assert set(found.seed) == {0, 1}


@pytest.mark.parametrize("processes", [1, 2])
def test_everywhere_keeps_the_order(processes):
    assert unlearned.everywhere(pow, [(2, 3), (3, 2), (5, 1)], processes=processes) == [8, 9, 5]


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
from test_unlearned import stay
from compendium.unlearning.studies import unlearned
if __name__ == "__main__":
    unlearned.everywhere(stay, [({folder!r}, 0), ({folder!r}, 1)], processes=2)
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
