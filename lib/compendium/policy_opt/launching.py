"""Training runs in processes of their own, so that no run sees what another left behind."""

import json
import multiprocessing
import os
import subprocess
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from compendium import report
from compendium.paths import ROOT, relative
from compendium.policy_opt.config import Config
from compendium.policy_opt.runs import INSTALL, DivergedError, RunError, place, quiet, record, run


def launch(jobs: Sequence[tuple[Config, Path]], *, processes: int = 1) -> list[dict]:
    """Records of runs, in order, each made in a process of its own; `processes` at a time. Raises RunError for the
    first that fails (DivergedError where its training diverged), after those under way have ended."""
    if processes < 1:
        raise RunError(f"processes is {processes}: it must be at least 1")
    with ThreadPoolExecutor(processes) as pool:
        return list(tqdm(pool.map(lambda job: alone(*job), jobs), total=len(jobs), desc="runs", disable=None))


def alone(config: Config, out, function=run) -> dict:
    """`function(config, out)` in a process of its own. Raises RunError with what went wrong there."""
    if function is run and config.python:
        return _elsewhere(config, Path(out))
    quiet()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["compendium.policy_opt.trainer"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(function, config, out, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        done, found = ours.recv()
    except EOFError:
        done, found = False, "its process was killed; the same command resumes it"
    process.join()
    if not done:
        raise (DivergedError if found.startswith("Diverged: ") else RunError)(f"{relative(out)}: {found}")
    return found


def diverged(out) -> bool:
    """Whether the run in a folder ended because its training diverged."""
    return "diverged" in (record(out) or {})


def _child(function, config: Config, out, pipe) -> None:
    def watch():  # a run whose parent was killed would go on unseen
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        pipe.send((True, function(config, out)))
    except KeyboardInterrupt:
        pipe.send((False, "interrupted; the same command resumes it"))
    except Exception as error:
        if not isinstance(error, ValueError | OSError | RuntimeError | ImportError):
            traceback.print_exc()  # a mistake in the code, whose place matters
        pipe.send((False, f"{type(error).__name__}: {str(error).strip() or 'no message'}"))


def _elsewhere(config: Config, out: Path) -> dict:
    """A run in another interpreter, whose environment holds its backend."""
    if not Path(config.python).is_file():
        raise RunError(f"there is no interpreter {config.python}; {INSTALL[config.backend]}")
    place(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = out / ".settings.yaml"
    report.write(settings, json.dumps(asdict(config) | {"python": None}))  # YAML holds JSON
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    command = [config.python, "-m", "compendium.policy_opt", "train", str(settings), "--out", str(out), "--here"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        kind = DivergedError if diverged(out) else RunError
        raise kind(f"{relative(out)}: {said.removeprefix('error: ')}; {INSTALL[config.backend]}")
    return record(out)
