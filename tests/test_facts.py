"""Facts, questions and scoring; packed scoring against one plain forward pass per option."""

import numpy as np
import pandas as pd
import pytest
import torch

from compendium import facts, tokens
from tests.families import KINDS, made


def plain_log_prob(model, prompt, option):
    """The slow exact way: one sequence, all logits."""
    ids = torch.tensor([[*prompt, *option]])
    logs = model(ids).logits.float().log_softmax(-1)[0]
    return sum(logs[len(prompt) - 1 + i, token] for i, token in enumerate(option))


def test_the_file_holds_hundreds_of_facts_in_many_relations():
    table = facts.load()
    assert len(table) >= 500
    assert table.relation.nunique() >= 4
    for relation in table.relation.unique():
        train, heldout = facts.templates(relation, "train"), facts.templates(relation, "heldout")
        assert len(train) >= 3
        assert len(heldout) >= 2
        assert not set(train) & set(heldout)


def test_questions_have_four_different_options_and_depend_on_the_seed_alone():
    everything = facts.questions("country_capital", seed=3)
    assert all(
        len(set(options)) == 4 and options[0] == answer
        for options, answer in zip(everything.options, everything.object, strict=True)
    )
    some = facts.questions("country_capital", seed=3, table=facts.load().query("subject in ['France', 'Chad']"))
    merged = some.merge(everything, on=["subject", "template"], suffixes=("", "_all"))
    assert (merged.options == merged.options_all).all()
    assert (facts.questions("country_capital", seed=4).options != everything.options).any()
    assert not everything.prompt.str.endswith(" ").any()
    assert everything.prompt.str[0].str.isupper().all()


def test_packed_scoring_equals_one_pass_per_option(tiny):
    rng = np.random.default_rng(0)
    draw = lambda low, high: tuple(int(t) for t in rng.integers(1, 97, rng.integers(low, high)))
    rows = [facts.Row(draw(1, 9), tuple(draw(1, 5) for _ in range(4))) for _ in range(6)]
    total, count = facts.log_probs(tiny, rows)
    expected = torch.stack([torch.stack([plain_log_prob(tiny, row.prompt, o) for o in row.options]) for row in rows])
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    assert count.tolist() == [[len(o) for o in row.options] for row in rows]
    alone = torch.cat([facts.log_probs(tiny, [row])[0] for row in rows])
    torch.testing.assert_close(total, alone, rtol=1e-4, atol=1e-5)


def test_packed_gradients_equal_plain_ones(tiny):
    row = facts.Row((3, 5, 7), ((11, 13), (17,)))
    facts.log_probs(tiny, [row])[0].sum().backward()
    packed = tiny.model.layers[0].self_attn.k_proj.weight.grad.clone()
    tiny.zero_grad()
    sum(plain_log_prob(tiny, row.prompt, option) for option in row.options).backward()
    torch.testing.assert_close(packed, tiny.model.layers[0].self_attn.k_proj.weight.grad, rtol=1e-3, atol=1e-6)


def test_scoring_the_real_model(embedded):
    model, tokenizer = embedded
    questions = facts.questions("country_capital").iloc[::12]
    results = facts.score(model, tokenizer, questions, batch=5)
    assert results.correct.mean() > 0.7
    assert ((results.margin > 0) == results.correct).all()
    assert (results.choice[results.correct] == results.object[results.correct]).all()
    row = facts.encode(tokenizer, questions.prompt[:1], questions.options[:1])[0]
    expected = plain_log_prob(model, row.prompt, row.options[0]).item() / len(row.options[0])
    assert results.logprob[0] == pytest.approx(expected, abs=1e-3)


def test_encoding_restores_the_text(embedded):
    _, tokenizer = embedded
    row = facts.encode(tokenizer, ["The capital of Chad is"], [("N'Djamena", "New Delhi", "Lima", "Port-au-Prince")])[0]
    assert [tokenizer.decode([*row.prompt, *option]) for option in row.options][
        3
    ] == "The capital of Chad is Port-au-Prince"


def test_the_model_knows_several_hundred_facts_in_four_relations(embedded):
    known = facts.known(*embedded, facts.load().iloc[::4])
    share = len(known) / len(facts.load().iloc[::4])
    assert share > 0.7
    assert known.relation.nunique() >= 4


def test_bad_input_is_refused(tmp_path, tiny):
    with pytest.raises(ValueError, match="unknown relation 'capitals': choose one of country_capital"):
        facts.questions("capitals")
    with pytest.raises(ValueError, match="unknown split 'test'"):
        facts.questions("country_capital", split="test")
    path = tmp_path / "facts.csv"
    for text, message in (
        ("relation,subject\n", "lacks column 'object'"),
        ("relation,subject,object,domain\n", "holds no facts"),
        ("relation,subject,object,domain\na,b,,d\n", "line 2: an empty value"),
        ("relation,subject,object,domain\na,b,c,d\na,b,e,d\n", "line 3: this relation and subject came before"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            facts.load(path)
    with pytest.raises(ValueError, match="no questions to ask"):
        facts.score(tiny, None, pd.DataFrame())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_every_option_read_alone_in_every_family(kind):
    """Also where a window is shorter than a row: then nothing is packed."""
    model = made(kind)
    rows = [
        facts.Row((3, 9, 4, 7), ((5, 6), (8,))),
        facts.Row((11, 2), ((5,), (6, 1, 3))),
        facts.Row((4,), ((9,), (2,))),
    ]
    with torch.no_grad():
        found, count = facts.log_probs(model, rows)
        for r, row in enumerate(rows):
            for o, option in enumerate(row.options):
                logp = model(torch.tensor([row.prompt + option])).logits[0].float().log_softmax(-1)
                start = len(row.prompt) - 1
                expected = sum(logp[start + i, token] for i, token in enumerate(option))
                torch.testing.assert_close(found[r, o], expected, rtol=1e-4, atol=1e-4)
                assert count[r, o] == len(option)


def test_a_window_as_long_as_a_row_is_packed_and_a_shorter_one_is_not(tiny):
    tiny.config.layer_types, rows = None, [facts.Row((1, 2, 3), ((4,), (5, 6)))]
    tiny.config.sliding_window = 6
    assert tokens.can_pack(tiny, len(rows[0]))
    tiny.config.sliding_window = 5
    assert not tokens.can_pack(tiny, len(rows[0]))
    with pytest.raises(ValueError, match="sliding window shorter than they are"):
        tokens.check_packs(tiny, "options", 6)
