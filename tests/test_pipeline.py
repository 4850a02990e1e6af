"""The pipeline in a throw-away clone: interrupt and resume, bad parameters, a corrupted model, nothing to do."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compendium.paths import MODELS, ROOT, relative

STAGE = "02-walkthrough"
OUT = "figures/02_unlearning/01_walkthrough"
PARAMETERS = "notebooks/02_unlearning/01_walkthrough.yaml"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh checkout of the work tree, with the fetched model linked in; commands there use its own library."""
    root = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for source in (path for path in MODELS.rglob("*") if path.is_file()):
        target = root / relative(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        (os.link if source.suffix == ".safetensors" else shutil.copy2)(source, target)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def environment(root):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(root / "lib"), "DVC_NO_ANALYTICS": "1"}


def dvc(root, *arguments):
    return subprocess.run(["dvc", *arguments], cwd=root, env=environment(root), capture_output=True, text=True)


def committed_and_present(root):
    done = subprocess.run(["git", "status", "--porcelain", OUT], cwd=root, capture_output=True, text=True)
    return done.stdout == "" and any((root / OUT).iterdir())


def test_a_bad_parameter_stops_the_stage_and_keeps_its_figures(clone):
    text = (clone / PARAMETERS).read_text()
    (clone / PARAMETERS).write_text(text.replace("block:", "blok:"))
    done = dvc(clone, "repro", "--single-item", STAGE)
    (clone / PARAMETERS).write_text(text)
    assert done.returncode != 0
    assert "unknown parameter 'blok': did you mean 'block'?" in done.stderr
    assert committed_and_present(clone)


def test_a_corrupted_model_file_is_one_line(clone):
    model = clone / "data/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    content = model.read_bytes()
    model.write_bytes(content[:1000])
    code = "from compendium import models; models.load()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, env=environment(clone), capture_output=True, text=True
    )
    model.write_bytes(content)
    assert done.returncode != 0
    assert "is truncated or wrong (1,000 of 98,362,432 bytes): run `make repro`" in done.stderr.strip().splitlines()[-1]


def test_interrupt_then_resume_then_nothing_to_do(clone):
    # Its own process group, as in a terminal, where Ctrl-C reaches every process; a background job would ignore it.
    started = subprocess.Popen(
        ["dvc", "repro", STAGE],
        cwd=clone,
        env=environment(clone),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    scratch = lambda: list((clone / "figures/02_unlearning").glob(".01_walkthrough.*"))
    copy = clone / "executed/02_unlearning/01_walkthrough.failed.ipynb"  # papermill saves it as each cell begins
    running = lambda: copy.exists() and '"status": "running"' in copy.read_text()
    deadline = time.time() + 60
    while not running() and time.time() < deadline and started.poll() is None:
        time.sleep(0.1)
    assert running(), started.communicate()[0]
    assert scratch()
    os.killpg(started.pid, signal.SIGINT)
    started.communicate(timeout=60)
    assert started.returncode != 0
    assert committed_and_present(clone)

    done = dvc(clone, "repro", STAGE)
    assert done.returncode == 0, done.stderr
    assert (clone / "executed/02_unlearning/01_walkthrough.ipynb").exists()
    assert committed_and_present(clone), "a rerun on the same machine must give the same bytes"
    assert not scratch()

    began = time.time()
    again = dvc(clone, "repro", STAGE)
    assert "up to date" in again.stdout
    assert time.time() - began < 10


def test_every_stage_is_in_the_graph(clone):
    graph = dvc(clone, "dag", "--dot").stdout
    assert '"02-walkthrough" -> "00-scorecard"' in graph
    assert '"fetch_model" -> "02-bin_width"' in graph
