"""Files from outside: what a cell means does not depend on how it was typed, and what cannot be read is said."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium import edits, facts, records
from compendium.attribution.refusal import prompt_sets, steering
from compendium.paths import DATA
from compendium.policy_opt import gsm8k, mbpp, training_data
from compendium.policy_opt.config import ConfigError
from compendium.unlearning import forget_set, objectives, probing, wmdp

FACT = "country_capital,France,Paris,Europe"
HEADER = "relation,subject,object,domain"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "facts.csv"


@pytest.mark.parametrize("name", ["facts", "prompts", "known", "prose"])
def test_our_own_tables_are_read_as_they_stand(name):
    plain = pd.read_csv(DATA / f"{name}.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(
        records.table(DATA / f"{name}.csv", list(plain.columns)).reset_index(drop=True), plain
    )


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{FACT}\n",
        f"{HEADER}\r\n{FACT}\r\n",
        f"\ufeff{HEADER}\n{FACT}",
        "relation, subject , object,domain\ncountry_capital, France, Paris, Europe\n",
        f'{HEADER}\n"country_capital", "France", "Paris", "Europe"\n',
        f"{HEADER}\n\ncountry_capital\u00a0,\u2009France\u200b,Paris\t, Europe \n\n,,,\n",
        "note,domain,object,subject,relation\nmine,Europe,Paris,France,country_capital\n",
        f"{HEADER}\n{FACT},,\n",
    ],
)
def test_one_fact_in_many_spellings(path, content):
    path.write_bytes(content.encode())
    assert facts.load(path).to_csv(index=False).split() == [HEADER, FACT]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["", " ", "\u00a0", "\u2009", "\t", "\ufeff", "  "]), min_size=8, max_size=8))
def test_spaces_never_make_another_fact(tmp_path_factory, spaces):
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    cells = FACT.split(",")
    row = ",".join(f"{spaces[2 * i]}{cell}{spaces[2 * i + 1]}" for i, cell in enumerate(cells))
    path.write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    assert facts.load(path).iloc[0].tolist() == cells
    keep = forget_set.others(facts.load(), facts.load(path), n=10**6)
    assert "France" not in set(keep.subject[keep.relation == "country_capital"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}\n{FACT}\ncountry_capital, France ,Lyon,Europe\n", "line 3: this relation and subject came before"),
        (f"{HEADER}\na,é,c,d\na,e\u0301,c,d\n", "line 3: this relation and subject came before"),
        (f"{HEADER}\n\n\na,b, ,d\n", "line 4: an empty value"),
        (f"{HEADER}\na,b,c,d,e\n", "line 2: 5 values for 4 columns: put a value that holds a comma"),
        (f"{HEADER}\na,b,c\n", "line 2: 3 values for 4 columns"),
        (HEADER.replace(",", ";") + "\na;b;c;d\n", "lacks column 'relation'.* separated by ';', use commas"),
        (HEADER.replace(",", "\t") + "\na\tb\tc\td\n", r"lacks column 'relation'.* separated by '\\t', use commas"),
        ("relation,subject,subject,object,domain\na,b,b,c,d\n", "column 'subject' more than once"),
        ("", "is empty: it needs the columns relation, subject, object, domain"),
        (f"{HEADER}\n", "holds no facts"),
        (f"{HEADER}\na,b\0,c,d\n", "null characters"),
    ],
)
def test_malformed_tables_are_refused_in_one_line(path, content, message):
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        facts.load(path)
    assert "\n" not in str(error.value)


def test_other_encodings_are_named(path):
    path.write_bytes(f"{HEADER}\na,é,c,d\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 2: not in UTF-8: save the file as UTF-8"):
        facts.load(path)
    path.write_bytes(f"{HEADER}\na,é,c,d\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16: save it as UTF-8"):
        facts.load(path)


def test_tables_in_memory_are_matched_like_files():
    plain = facts.load().query("subject == 'France'")
    typed = plain.assign(subject=" France\u00a0", relation=plain.relation + "  ", note=1)
    assert forget_set.others(facts.load(), typed, n=50).equals(forget_set.others(facts.load(), plain, n=50))
    columns = ["prompt", "options", "subject"]
    one, other = (facts.questions(table=table)[columns] for table in (plain, typed))
    assert one.equals(other)
    with pytest.raises(ValueError, match="lacks column 'domain'"):
        facts.questions(table=plain.drop(columns="domain"))
    with pytest.raises(ValueError, match="missing values"):
        forget_set.others(plain.assign(object=None), plain, n=5)


@pytest.mark.parametrize(
    ("template", "split", "message"),
    [
        ("The capital is", "train", "line 2: a template needs {subject}"),
        ("The {capital} of {subject} is", "train", "line 2: a template needs {subject}"),
        ("The capital of {subject} is {", "train", "line 2: a template needs {subject}"),
        ("The capital of {subject!r} is", "train", "line 2: a template needs {subject}"),
        ("The capital of {} is", "train", "line 2: a template needs {subject}"),
        ("The capital of {subject} is", "test", "line 2: unknown split 'test'"),
        ("The capital of {subject} is", "heldout", "no train template for relation 'a'"),
    ],
)
def test_templates_that_cannot_be_filled_are_named(tmp_path, template, split, message):
    path = tmp_path / "prompts.csv"
    path.write_text(f'relation,split,template\na,{split},"{template}"\n')
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        facts.templates("a", "train", path)


def test_json_lines_with_a_mark_windows_ends_and_blank_lines(tmp_path):
    path = tmp_path / "set.jsonl"
    pair = {"prompt": "a\u2028b", "chosen": "c", "rejected": "d"}
    path.write_bytes(("\ufeff" + json.dumps(pair, ensure_ascii=False) + "\r\n\r\n").encode())
    assert training_data.read_pairs(str(path)) == [pair]
    item = {"question": "Which?", "choices": [" Rome", "Paris\u00a0", "Oslo", "Lima"], "answer": 1}
    path.write_bytes(("\ufeff" + json.dumps(item) + "\r\n").encode())
    assert wmdp.load(str(path)).options[0] == ("Paris", "Rome", "Oslo", "Lima")
    for change in ({"answer": True}, {"answer": None}):
        path.write_text(json.dumps(item | change))
        with pytest.raises(ValueError, match="item 1: answer must be the index"):
            wmdp.load(str(path))
    for choices in (["a", "a ", "b", "c"], ["a", "", "b", "c"]):
        path.write_text(json.dumps(item | {"choices": choices}))
        with pytest.raises(ValueError, match="item 1: its choices must be 4 different texts"):
            wmdp.load(str(path))
    for text, message in (("[1]", "item 1: it needs a question"), ("{", "item 1: not JSON")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            wmdp.load(str(path))
    path.write_bytes('{"question": "é"}'.encode("latin-1"))
    for read in (lambda p: wmdp.load(p), gsm8k.gsm8k, mbpp.mbpp):
        with pytest.raises(ValueError, match="line 1: not in UTF-8"):
            read(str(path))
    with pytest.raises(ConfigError, match="line 1: not in UTF-8"):
        training_data.read_pairs(str(path))
    path.write_text(json.dumps(pair | {"rejected": "c"}))
    with pytest.raises(ConfigError, match="line 1: chosen and rejected are the same"):
        training_data.read_pairs(str(path))


def test_too_little_data_is_said_before_anything_runs(tiny):
    table = facts.load().query("relation == 'country_capital'")
    for call, message in (
        (lambda: edits.batches([], 8, 4, None), "there are no rows to train on"),
        (lambda: edits.batches([1], 0, 4, None), "at least one row"),
        (lambda: forget_set.domain(None, None, "country_capital", "Europe", retain=0, known=table), "retain is 0"),
        (lambda: forget_set.domain(None, None, "country_capital", "Europe", known=table), "choose another domain"),
        (
            lambda: forget_set.domain(None, None, "country_capital", "Atlantis", known=table),
            "there is no fact of relation",
        ),
        (lambda: objectives.nll(tiny, []), "no rows"),
        (lambda: facts.log_probs(tiny, []), "no rows"),
        (lambda: objectives.rmu(tiny, None, [], [], layer=1), "no rows"),
        (lambda: probing.relearn(tiny, None, table.head(1)), "at least two; got 1"),
        (lambda: probing.substituted(table.head(1)), "two different answers"),
        (lambda: steering.hidden(tiny, [], steering.last), "no rows of tokens"),
        (lambda: steering.condition(tiny, [[(1, 2)]], [(3, 4)]), "two wordings at least"),
        (lambda: prompt_sets.wordings("medicine", "test"), "unknown split 'test'"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_marks_that_no_one_sees_are_taken_off_and_joiners_stay():
    assert records.clean("\u202aFra\u00adnce\u202c\u200e") == "France"
    assert records.clean("\u2066Paris\u2069") == "Paris"
    assert records.clean("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"
