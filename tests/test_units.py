"""Sweeps: what is finished is kept, found again, made elsewhere or merged, and gives the bytes of one undisturbed run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from compendium import dependencies, files, units, workers

FLOATS = [0.1, 1 / 3, 1e-300, np.nextafter(1, 2)]


def noted(folder, i, fail=None):
    """Leaves a trace of each call, in `folder`; the unit that is told ends in a failure, or takes its process along."""
    with open(Path(folder) / str(i), "a") as file:
        file.write("x")
    wanted = (Path(folder) / "fail").read_text() if (Path(folder) / "fail").exists() else ""
    if wanted == f"die {i}":
        os._exit(9)
    if wanted == f"raise {i}":
        raise ValueError("nothing to learn from")
    found = {
        "values": pd.DataFrame({"i": i, "value": FLOATS, "text": ['a "b"', "c,d", "e\nf", None]}, index=[3, 1, 2, 0])
    }
    return found | ({"even": pd.DataFrame({"i": [i], "half": [i / 2]})} if i % 2 == 0 else {})


def sweep(tmp_path, name="out", n=6, **more):
    (tmp_path / "seen").mkdir(exist_ok=True)
    jobs = [{"folder": str(tmp_path / "seen"), "i": i} for i in range(n)]
    return units.Sweep(noted, jobs, tmp_path / name, "tests", **more)


def calls(tmp_path) -> dict[int, int]:
    return {int(path.name): len(path.read_text()) for path in (tmp_path / "seen").glob("[0-9]*")}


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.glob("*"))
    return names == sorted(path.name for path in other.glob("*")) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def test_tables_are_the_units_rows_in_their_order(tmp_path):
    tables = units.run(sweep(tmp_path), progress=False)
    assert tables["values"].i.tolist() == [i for i in range(6) for _ in FLOATS]
    assert tables["even"].half.tolist() == [0, 1, 2]
    assert tables["values"].text[:3].tolist() == ['a "b"', "c,d", "e\nf"]
    rows = units.read_rows(tmp_path / "out")
    of = sweep(tmp_path)
    for unit in of.units:
        assert rows[of.key(unit)] == units.Rows.of(noted(**unit))
    assert not (tmp_path / ".out.units").exists()
    in_memory = units.run(units.Sweep(noted, of.units, None, "tests"), progress=False)
    assert in_memory["values"].value.tolist() == FLOATS * 6, "all digits"


@pytest.mark.parametrize(("how", "processes"), [("raise", 1), ("raise", 2), ("die", 2)])
def test_a_unit_that_fails_loses_no_other(tmp_path, how, processes):
    units.run(sweep(tmp_path, "whole"), progress=False)
    of = sweep(tmp_path)
    (tmp_path / "seen" / "fail").write_text(f"{how} 3")
    before = calls(tmp_path)
    with pytest.raises((ValueError, units.Lost), match=r"nothing to learn|a worker was killed.* lower processes"):
        units.run(of, processes=processes, progress=False)
    assert not (tmp_path / "out").exists()
    kept = {i for i, unit in enumerate(of.units) if (tmp_path / ".out.units" / f"{of.key(unit)}.json").exists()}
    assert 3 not in kept
    if how == "raise":
        assert {0, 1, 2} <= kept
    (tmp_path / "seen" / "fail").unlink()
    units.run(of, progress=False)
    made = {i: n - before[i] for i, n in calls(tmp_path).items()}
    assert all(made[i] == 1 for i in kept), "a finished unit was made again"
    assert same(tmp_path / "out", tmp_path / "whole")


SCRIPT = """
import sys
from pathlib import Path
from compendium import units
from tests.test_units import slow, slow_sweep
if __name__ == "__main__":
    units.run(slow_sweep(Path({folder!r})), processes=2)
"""


def slow(folder, i):
    time.sleep(0.15)
    return noted(folder, i)


def slow_sweep(tmp_path, name="out"):
    jobs = [{"folder": str(tmp_path / "seen"), "i": i} for i in range(12)]
    return units.Sweep(slow, jobs, tmp_path / name, "tests")


def test_killed_at_five_points_and_resumed(tmp_path):
    """The parent is killed outright; its workers leave with it, and finished units are never made again."""
    (tmp_path / "seen").mkdir()
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    of, finished = slow_sweep(tmp_path), {}
    there = lambda: {i for i, u in enumerate(of.units) if (tmp_path / ".out.units" / f"{of.key(u)}.json").exists()}
    for k in range(5):
        run = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
        wanted = min(len(there()) + 1 + k % 2, 11)
        wait(lambda wanted=wanted: len(there()) >= wanted, 90)
        run.kill()
        run.wait()
        before = calls(tmp_path)
        time.sleep(0.6)  # nobody goes on
        assert calls(tmp_path) == before
        finished |= {i: n for i, n in before.items() if i in there() and i not in finished}
    units.run(of, progress=False)
    assert all(calls(tmp_path)[i] == n for i, n in finished.items()), "a finished unit was made again"
    units.run(slow_sweep(tmp_path, "whole"), progress=False)
    assert same(tmp_path / "out", tmp_path / "whole")


def wait(done, seconds):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(0.05)


def test_processes_shards_and_a_cluster_give_the_same_bytes(tmp_path):
    units.run(sweep(tmp_path, "whole"), progress=False)
    units.run(sweep(tmp_path, "two"), processes=2, progress=False)
    assert same(tmp_path / "two", tmp_path / "whole")
    of = sweep(tmp_path, "merged")
    for i in (2, 1):
        assert units.run(of, shard=(i, 2), progress=False) == {}
    with pytest.raises(ValueError, match="3 of 6 units are in none of these folders"):
        units.merge(of, [tmp_path / "merged.shard-1-of-2"])
    units.merge(of, [tmp_path / "merged.shard-1-of-2", tmp_path / "merged.shard-2-of-2"])
    assert same(tmp_path / "merged", tmp_path / "whole")


def test_a_dask_cluster_of_two_gives_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    units.run(sweep(tmp_path, "whole"), progress=False)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        units.run(sweep(tmp_path, "cluster"), scheduler=cluster.scheduler_address, progress=False)
    assert same(tmp_path / "cluster", tmp_path / "whole")


def test_a_cluster_that_is_not_there_is_said_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    with pytest.raises(OSError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        units.run(sweep(tmp_path), scheduler="tcp://127.0.0.1:9", progress=False)


def test_only_what_changed_is_made_again(tmp_path, monkeypatch):
    units.run(sweep(tmp_path, n=4), progress=False)
    units.run(sweep(tmp_path, n=6), progress=False)
    assert set(calls(tmp_path).values()) == {1}, "units that were in the tables were made again"
    units.run(sweep(tmp_path, n=6), progress=False)
    assert set(calls(tmp_path).values()) == {1}
    file = tmp_path / "input.csv"
    file.write_text("a\n1\n")
    of = sweep(tmp_path, inputs=(file,))
    units.run(of, progress=False)
    assert set(calls(tmp_path).values()) == {2}
    file.write_text("a\n2\n3\n")
    units.run(of, progress=False)
    assert set(calls(tmp_path).values()) == {3}
    monkeypatch.setattr(dependencies, "code", lambda name: "another")
    units.run(of, progress=False)
    assert set(calls(tmp_path).values()) == {4}


def test_units_follow_the_code_that_they_run():
    nf4, pfn = (dependencies.closure({dependencies.module(f"compendium.{name}")}) for name in ("nf4", "tabular.pfn"))
    assert [path.name for path in nf4] == ["nf4.py"]
    assert {"columns.py", "encode.py", "inputs.py"} <= {path.name for path in pfn}
    assert "baselines.py" not in {path.name for path in pfn}


def test_a_change_of_the_runner_makes_no_unit_again(monkeypatch):
    name, changed = "compendium.tabular.studies.learning_rates", []
    monkeypatch.setattr(dependencies, "sha256", lambda path: f"{path.name}{path.name in changed}")
    digest = lambda: dependencies.code.__wrapped__(name)
    before = digest()
    changed[:] = ["units.py", "workers.py"]
    assert digest() == before
    changed[:] = ["finetune.py"]
    assert digest() != before


def test_workers_give_way_to_one_another():
    with workers.pool(os.getenv, 2, None) as submit:
        made = list(submit([{"key": "GOMP_SPINCOUNT"}]))
    assert [spins for _, spins in made] == [os.environ["GOMP_SPINCOUNT"]]


def test_packages_that_a_study_does_without_may_lack(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "PACKAGES", ("numpy", "no-such-package"))
    units._versions.cache_clear()
    assert sweep(tmp_path).key({"folder": "a", "i": 1})
    units._versions.cache_clear()


def test_results_take_no_foreign_folders_place(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link", tmp_path / "thesis.txt"):
        with pytest.raises(files.FolderError):
            units.run(units.Sweep(noted, [{"folder": str(tmp_path), "i": 1}], out, "tests"), progress=False)
    units.run(sweep(tmp_path), progress=False)
    with pytest.raises(files.FolderError, match="holds the results of tests"):
        units.run(units.Sweep(noted, sweep(tmp_path).units, tmp_path / "out", "others"), progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_bad_requests_are_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="two units are the same"):
        units.Sweep(noted, [{"folder": "a", "i": 1}] * 2, tmp_path / "out", "tests")
    with pytest.raises(ValueError, match="must be at least 1"):
        units.run(sweep(tmp_path), processes=0)
    with pytest.raises(ValueError, match="shard 3/2"):
        units.run(sweep(tmp_path), shard=(3, 2))
    with pytest.raises(FileNotFoundError, match="dvc repro x makes them"):
        units.read(tmp_path / "none", again="dvc repro x")
    assert not calls(tmp_path)


def test_progress_says_how_long_the_rest_takes(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(workers.time, "monotonic", lambda: next(clock))
    shown = workers.Progress(4, 1, what="sweep")
    for _ in range(3):
        shown.step()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "sweep: 4 units, 1 of them kept from before"
    assert said[1] == "sweep: 2 of 4 units, 1.0 min, 2.0 min left"
    assert said[-1].startswith("sweep: 4 of 4 units")


def test_the_index_says_which_rows_are_whose(tmp_path):
    units.run(sweep(tmp_path, notes={"left out": ["x"]}), progress=False)
    index = json.loads((tmp_path / "out" / "units.json").read_text())
    assert index["left out"] == ["x"]
    assert index["units"][2]["arguments"]["i"] == 2
    assert index["units"][2]["rows"] == {"values": [8, 12], "even": [1, 2]}
