"""Folders appear whole or not at all, and nothing that was not made here is ever replaced."""

import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium import files


def fill(folder, meanwhile=lambda: None, **texts):
    with files.replaced(folder) as scratch:
        for name, text in texts.items():
            files.write(scratch / name, text)
        meanwhile()


def work(folder, key, *, fails, **texts):
    """What an earlier run of the same work left; writes `texts`, and then fails or not."""
    with files.resumed(folder, key) as units:
        found = {name: text for name, text in listed(units).items() if name != files.MANIFEST}
        for name, text in texts.items():
            files.write(units / name, text)
        if fails:
            raise ValueError("boom")
    return found


def listed(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_made_here_is_replaced_whole(tmp_path):
    fill(tmp_path / "a", one="1", two="2")
    fill(tmp_path / "a", three="3")
    assert sorted(listed(tmp_path / "a")) == [files.MANIFEST, "three"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_same_files_give_the_same_manifest(tmp_path):
    fill(tmp_path / "a", one="1", two="2")
    first = (tmp_path / "a" / files.MANIFEST).read_bytes()
    fill(tmp_path / "a", two="x", one="y")
    assert (tmp_path / "a" / files.MANIFEST).read_bytes() == first


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "deep/er/notes.txt", "empty/"])
@pytest.mark.parametrize("made", [True, False])
def test_what_no_run_wrote_is_kept(tmp_path, name, made):
    folder = tmp_path / "a"
    fill(folder, one="1") if made else folder.mkdir()
    path = folder / name
    path.mkdir(parents=True) if name.endswith("/") else files.write(path, "mine")
    before = listed(folder)
    with pytest.raises(files.FolderError, match="which no run wrote"):
        fill(folder, one="2")
    assert listed(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_comes_while_the_block_runs_is_kept(tmp_path):
    with pytest.raises(files.FolderError, match=r"notes.txt"):
        fill(tmp_path / "a", lambda: files.write(tmp_path / "a/notes.txt", "mine"), one="1")
    assert listed(tmp_path / "a") == {"notes.txt": "mine"}


def test_an_empty_folder_may_be_filled_and_what_editors_leave_does_not_count(tmp_path):
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a", one="1")
    files.write(tmp_path / "a/.ipynb_checkpoints/one", "old")
    fill(tmp_path / "a", one="2")
    assert (tmp_path / "a/one").read_text() == "2"


def test_links_files_and_the_working_folder_are_refused(tmp_path, monkeypatch):
    fill(tmp_path / "a", one="1")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    files.write(tmp_path / "file", "text")
    inside = tmp_path / "work/inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for folder, why in {
        tmp_path / "link": "is a link",
        tmp_path / "dangling": "is a link",
        tmp_path / "file": "is a file",
        tmp_path / "file/below": "no folder",
        ".": "working folder",
        "..": "working folder",
        "": "working folder",
        inside: "working folder",
        tmp_path / "work": "working folder",
    }.items():
        with pytest.raises(files.FolderError, match=why):
            fill(folder, one="2")
    assert (tmp_path / "a/one").read_text() == "1"
    assert inside.is_dir()


def test_a_failure_or_an_interruption_leaves_what_was_there(tmp_path):
    fill(tmp_path / "a", one="1")

    def stop(error):
        raise error

    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            fill(tmp_path / "a", lambda error=error: stop(error), one="2")
    assert listed(tmp_path / "a")["one"] == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_kill_leaves_what_was_there_and_the_next_run_goes_on(tmp_path):
    fill(tmp_path / "a", one="1")
    code = (
        "import sys, time; from compendium import files\n"
        "with files.replaced(sys.argv[1]) as scratch:\n"
        "    files.write(scratch / 'one', '2'); print('filled', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "filled\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert listed(tmp_path / "a")["one"] == "1"
    fill(tmp_path / "a", one="3")
    assert listed(tmp_path / "a")["one"] == "3"


def test_the_results_of_another_command_are_kept(tmp_path):
    for command in ("one", "one"):
        with files.replaced(tmp_path / "a", command=command) as scratch:
            files.write(scratch / "table", command)
    for other in (tmp_path / "a", tmp_path / "b"):
        if other.name == "b":
            fill(other, table="a notebook's")
        before = listed(other)
        with pytest.raises(files.FolderError, match=r"holds the results of (one|another command)"):
            files.check(other, "two")
        assert listed(other) == before


def test_two_runs_at_once_each_end_with_a_whole_folder(tmp_path):
    with files.replaced(tmp_path / "a") as one, files.replaced(tmp_path / "a") as two:
        for scratch in (one, two):
            files.write(scratch / "who", scratch.parent.name)
    assert sorted(listed(tmp_path / "a")) == [files.MANIFEST, "who"]


def test_units_survive_a_failure_and_are_found_by_the_same_work_only(tmp_path):
    units = tmp_path / "units"
    for _ in range(2):
        with pytest.raises(ValueError, match="boom"):
            work(units, "key", fails=True, one="1")
    assert work(units, "key", fails=False) == {"one": "1"}
    assert not units.exists()
    with pytest.raises(ValueError, match="boom"):
        work(units, "key", fails=True, one="1")
    assert work(units, "another", fails=False) == {}
    files.write(units / "one", "mine")
    with pytest.raises(files.FolderError, match="which no run wrote"):
        work(units, "key", fails=False)
    assert listed(units) == {"one": "mine"}


@given(st.dictionaries(st.sampled_from("abcde"), st.text(max_size=3)), st.sets(st.sampled_from("vwxyz")))
@settings(max_examples=25, deadline=None)
def test_a_swap_never_loses_a_file_it_did_not_make(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("swap") / "a"
    fill(folder, **ours)
    for name in theirs:
        files.write(folder / name, "mine")
    try:
        fill(folder, new="n")
    except files.FolderError:
        assert theirs
    assert theirs <= set(listed(folder))
    assert bool(theirs) == ("new" not in listed(folder))


def test_a_write_is_whole_and_leaves_nothing_beside(tmp_path):
    started = time.time()
    files.write(tmp_path / "x/y.txt", "é")
    assert (tmp_path / "x/y.txt").read_bytes() == "é".encode()
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["y.txt"]
    assert time.time() - started < 5


@pytest.mark.parametrize("names", ["null", "5", "[1]", '"one"', '{"one": 1}'])
def test_a_manifest_that_is_broken_names_nothing(tmp_path, names):
    files.write(tmp_path / "a/one", "mine")
    files.write(tmp_path / "a" / files.MANIFEST, f'{{"made by": "compendium", "files": {names}}}')
    with pytest.raises(files.FolderError, match="which no run wrote"):
        fill(tmp_path / "a", two="2")
    assert listed(tmp_path / "a")["one"] == "mine"


def test_a_file_in_the_place_of_a_folder_is_no_file_of_ours(tmp_path):
    with files.replaced(tmp_path / "a") as scratch:
        files.write(scratch / "deep/one", "1")
    (tmp_path / "a/deep/one").unlink()
    (tmp_path / "a/deep").rmdir()
    files.write(tmp_path / "a/deep", "mine")
    with pytest.raises(files.FolderError, match="holds deep, which no run wrote"):
        fill(tmp_path / "a", two="2")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250, "loop", "loop/below"])
def test_names_that_cannot_be_are_refused_in_one_line(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(files.FolderError) as refused:
        fill(tmp_path / name, one="1")
    assert len(str(refused.value).splitlines()) == 1


def test_what_cannot_take_its_place_in_the_end_is_kept_beside_it(tmp_path):
    fill(tmp_path / "a", one="1")
    with pytest.raises(files.FolderError, match=r"What was made is kept in .*/a\.\w+\.partial$") as refused:
        fill(tmp_path / "a", lambda: files.write(tmp_path / "a/notes.txt", "mine"), one="2")
    kept = str(refused.value).split(" kept in ")[1]
    assert (tmp_path / kept / "one").read_text() == "2"
    assert listed(tmp_path / "a") | {files.MANIFEST: ""} == {files.MANIFEST: "", "one": "1", "notes.txt": "mine"}


def test_a_block_that_removes_its_folder_replaces_nothing(tmp_path):
    fill(tmp_path / "a", one="1")
    with pytest.raises(files.FolderError, match="removed"), files.replaced(tmp_path / "a") as scratch:
        scratch.rmdir()
    assert listed(tmp_path / "a")["one"] == "1"


def test_two_that_share_their_units_both_end_well(tmp_path):
    with files.resumed(tmp_path / "units", "key"), files.resumed(tmp_path / "units", "key"):
        pass
    assert not (tmp_path / "units").exists()
