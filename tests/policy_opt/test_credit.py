"""Counterfactual credit: spans in text, drops against one slow pass a span, weights against worked examples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium.policy_opt import credit, regions, word_problems
from compendium.policy_opt.regions import Regions, Span


class Characters:
    """A tokenizer with a token for every ASCII character below 97, capitals included."""

    def decode(self, ids):
        return "".join(map(chr, ids))

    def __call__(self, text):
        return {"input_ids": [ord(letter) for letter in text]}


class Spaced:
    """A tokenizer whose pieces do not add up to the text: it puts spaces between words when it decodes."""

    words = "SO 3 + 4 = 7 AND THIS IS ALL THERE IS . #### 12".split()

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)


# Spans in text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calculation",
    [
        "3 + 4 = 7",
        "12-5=7",
        "3 × 4 = 12",
        "10 ÷ 4 = 2.5",
        "10 / 4 ≈ 2.5",
        "2*3*4 = 24",
        "$5 * 3 = $15",
        "3 * -4 = -12",
        "3 − 5 = −2",
        "(3+4)*2 = 14",
        "2 * (3 + (4 - 1)) = 12",
        "6 dishes / 2 = 3",
        "3 apples + 4 pears = 7",
        "5 hours per day * 3 days = 15",
        "20% of 50 = 10",
        "50 * 20% = 10",
        "1,000 + 5 = 1,005",
        "1,234,567.5 * 2 = 2,469,135",
        "3 x 4 = 12",
        "3 times 4 equals 12",
        "3 plus 4 is equal to 7",
        "7 = 3 plus 4",
        "3 cups of tea + 4 = 7",
        "2^3 = 8",
        "2**3 = 8",
        "1 + 2 = 3 = 3",
        "7 = 3 + 4",
        "3 + 4 = 2 + 5 = 7",
        r"3 \times 4 = 12",
        r"12 \div 4 = 3",
        r"3 \cdot 4 = 12",
        r"\frac{3}{4} = 0.75",
        r"\frac{1}{2} \times 10 = 5",
        r"\$5 \times 3 = \$15",
        r"20\% \times 50 = 10",
        r"\left(3 + 4\right) \times 2 = 14",
        r"3 \text{ cups} \times 4 = 12",
        r"1{,}000 + 5 = 1{,}005",
        r"3 \, + \, 4 \approx 7",
        "48/2 = <<48/2=24>>24",
    ],
)
def test_a_calculation_is_found_whole(calculation):
    for before, after in (
        ("", ""),
        ("So we see that ", " apples in all."),
        ("He has 5 boxes. It is ", ".\nThen"),
        ("= ", " (7)."),
    ):
        text = before + calculation + after
        found = [text[start:end] for start, end in regions.calculations(text)]
        assert found == [calculation], text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3 + 4",
        "x = 5",
        "12 = 12",
        "3 + 4 => 7",
        "3 + 4 == 7",
        "on 2024-01-02",
        "a - b = c",
        "5 = five",
        "pages 3-4",
        "3 +\n4 = 7",
        "he has 3 = three",
    ],
)
def test_what_is_no_calculation(text):
    assert regions.calculations(text) == []


def test_gsm8k_annotations():
    text = "He sold 48/2 = <<48/2=24>>24 clips in May. Then 48+24 = <<48+24=72>>72."
    assert [text[s:e] for s, e in regions.calculations(text)] == ["48/2 = <<48/2=24>>24", "48+24 = <<48+24=72>>72"]


@settings(deadline=2000, max_examples=60)
@given(st.text(alphabet="0123456789+-*/=(){}[]$%., \\frac<>xab", max_size=300))
def test_spans_of_any_text_are_cheap_and_ordered(text):
    for found in (regions.calculations(text), regions.sentences(text)):
        flat = [place for span in found for place in span]
        assert flat == sorted(flat)
        assert all(0 <= start < end <= len(text) for start, end in found)


def test_sentences():
    text = "One is 3.5 here. Is it?  Yes!\n\nNo end\nhere... Then"
    assert [text[s:e] for s, e in regions.sentences(text)] == [
        "One is 3.5 here.",
        "Is it?",
        "Yes!",
        "No end",
        "here...",
        "Then",
    ]


# Regions ---------------------------------------------------------------------------------------------------------


def pieces(tokenizer, ids, region):
    return [(span.kind, tokenizer.decode(ids[span.start : span.end])) for span in region.spans]


def test_regions_of_a_completion():
    tokenizer = Characters()
    text = "FIRST WE READ. SO 3 + 4 = 7 AND THEN WE GO ON. NO.\n#### 7 !"
    ids = tokenizer(text)["input_ids"]
    region = regions.regions(tokenizer, ids)
    assert region.length == len(text)
    assert text[region.reasoning :] == "#### 7 !"
    assert text[slice(*region.answer)] == "7"
    assert pieces(tokenizer, ids, region) == [
        ("sentence", "FIRST WE READ."),
        ("calculation", "3 + 4 = 7"),
        ("sentence", " AND THEN WE GO ON."),
    ]
    few = regions.regions(tokenizer, ids, limit=2, shortest=3)
    assert [span.kind for span in few.spans] == ["sentence", "calculation"]
    assert regions.regions(tokenizer, ids, longest=8).spans == ()
    assert len(regions.regions(tokenizer, ids, shortest=1).spans) == 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A. #### $1,234.5 OK", "$1,234.5"),
        ("A. FINAL ANSWER: IT IS -5", "-5"),
        ("#### 5", "5"),
        ("A. #### NONE", " NONE"),
        ("A. ####", None),
        ("A 5", None),
        ("", None),
    ],
)
def test_answers(text, answer):
    region = regions.regions(Characters(), list(map(ord, text)))
    assert (region.answer and text[slice(*region.answer)]) == answer
    if answer is None:
        assert region == Regions(len(text), len(text), None, ())


def test_calculations_in_the_answer_are_no_reasoning():
    text = "WE SAY IT AS IT IS. #### 3 + 4 = 7"
    assert pieces(Characters(), list(map(ord, text)), regions.regions(Characters(), list(map(ord, text)))) == [
        ("sentence", "WE SAY IT AS IT IS.")
    ]


def test_tokens_that_change_with_their_neighbours():
    tokenizer, ids = Spaced(), list(range(15))
    text, begin = regions.offsets(tokenizer, ids)
    assert text == " ".join(Spaced.words)
    assert len(begin) == 16
    assert begin[-1] == len(text)
    region = regions.regions(tokenizer, ids)
    assert pieces(tokenizer, ids, region) == [("calculation", "3 + 4 = 7"), ("sentence", "AND THIS IS ALL THERE IS .")]
    assert region.reasoning == 13
    assert region.answer == (14, 15)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="AB .!\n123+=#", max_size=120), st.integers(1, 6), st.integers(1, 5), st.integers(5, 30))
def test_spans_are_disjoint_and_inside_the_reasoning(text, limit, shortest, longest):
    region = regions.regions(Characters(), list(map(ord, text)), limit=limit, shortest=shortest, longest=longest)
    places = [place for span in region.spans for place in range(span.start, span.end)]
    assert len(set(places)) == len(places)
    assert all(place < region.reasoning for place in places)
    assert len(region.spans) <= limit
    assert all(span.end - span.start <= longest for span in region.spans)
    if region.answer:
        assert region.reasoning < region.answer[0] < region.answer[1] <= region.length


# Drops -----------------------------------------------------------------------------------------------------------


def slow_drops(model, prompt, completion, region, placeholder):
    """One pass for each span, over the whole text, with a plain mask of the tokens in view."""

    def score(ids, view):
        logits = model(
            torch.tensor([ids]), attention_mask=view[None], position_ids=torch.arange(len(ids))[None]
        ).logits[0]
        at = torch.arange(*region.answer) + len(prompt)
        return logits.log_softmax(-1)[at - 1, torch.tensor(ids)[at]].sum().item()

    if not region.spans:
        return []
    ids, view = [*prompt, *completion], torch.ones(len(prompt) + len(completion), dtype=torch.long)
    whole, found = score(ids, view), []
    for span in region.spans:
        hidden, part = view.clone(), list(ids)
        if placeholder is None:
            hidden[len(prompt) + span.start : len(prompt) + span.end] = 0
        else:
            part[len(prompt) + span.start : len(prompt) + span.end] = [placeholder] * (span.end - span.start)
        found.append(whole - score(part, hidden))
    return found


def batch(seed=0):
    """Prompts and completions of several lengths with random spans; one has no answer, one no spans."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(3, 97, n).tolist()
    prompts = [draw(n) for n in (5, 1, 9, 3, 4)]
    completions = [draw(n) for n in (20, 12, 30, 8, 6)]
    parsed = [
        Regions(20, 14, (16, 18), (Span(0, 3, "sentence"), Span(3, 4, "calculation"), Span(9, 14, "sentence"))),
        Regions(12, 9, (11, 12), (Span(2, 9, "sentence"),)),
        Regions(30, 20, (25, 30), (Span(1, 5, "calculation"), Span(6, 20, "sentence"))),
        Regions(8, 8, None, ()),
        Regions(6, 4, (5, 6), ()),
    ]
    return prompts, completions, parsed


@pytest.mark.parametrize("placeholder", [None, 2])
@pytest.mark.parametrize("budget", [1, 60, 16_384])
def test_packed_drops_equal_one_pass_a_span(tiny, placeholder, budget):
    prompts, completions, parsed = batch()
    found = credit.drops(tiny, prompts, completions, parsed, placeholder=placeholder, budget=budget)
    for own, *one in zip(found, prompts, completions, parsed, strict=True):
        np.testing.assert_allclose(own, slow_drops(tiny, *one, placeholder), rtol=1e-3, atol=2e-5)
        assert len(own) == len(one[2].spans)


def test_dropout_is_off_while_scoring_and_back_on_afterwards(tiny):
    prompts, completions, parsed = batch()
    expected = credit.drops(tiny, prompts, completions, parsed)
    for layer in tiny.model.layers:
        layer.self_attn.attention_dropout = 0.5
    tiny.train()
    found = credit.drops(tiny, prompts, completions, parsed)
    assert tiny.training
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_adapters_are_in_view(tiny):
    from peft import LoraConfig, get_peft_model

    prompts, completions, parsed = batch()
    before = credit.drops(tiny, prompts, completions, parsed)
    adapted = get_peft_model(tiny, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    found = credit.drops(adapted, prompts, completions, parsed)
    expected = slow_drops(adapted, prompts[0], completions[0], parsed[0], None)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=2e-5)
    assert np.abs(found[0] - before[0]).max() > 1e-4


def test_attention_that_takes_no_tree_is_refused(tiny):
    tiny.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attn_implementation='sdpa'"):
        credit.drops(tiny, *batch())


def test_an_answer_that_can_be_copied_depends_on_what_it_is_copied_from(tiny):
    """A planted copy: the span that holds the answer is found, the others do nothing."""
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.zero_()
        eye = torch.eye(64)
        # Tokens 3 to 34 as one-hot vectors; every position averages what it sees, and the head reads it off.
        tiny.model.embed_tokens.weight[3:35, :32] = eye[:32, :32]
        tiny.lm_head.weight[3:35, 32:] = 20 * eye[:32, :32]
        for norm in (tiny.model.norm, *(layer.input_layernorm for layer in tiny.model.layers)):
            norm.weight.fill_(1.0)
        attention = tiny.model.layers[0].self_attn
        attention.v_proj.weight[:, :32] = eye[:32, :32]
        # Two heads read each key-value head: heads 0 and 2 see both halves.
        attention.o_proj.weight[32:48, :16] = eye[:16, :16]
        attention.o_proj.weight[48:, 32:48] = eye[:16, :16]
    completion = [10, 11, 12, 20, 21, 13, 14, 50, 20]
    region = Regions(9, 7, (8, 9), (Span(0, 3, "sentence"), Span(3, 5, "calculation"), Span(5, 7, "sentence")))
    (found,) = credit.drops(tiny, [[60, 61]], [completion], [region])
    assert found[1] > 1
    assert found[0] < 0.5
    assert found[2] < 0.5


# Weights ---------------------------------------------------------------------------------------------------------

EXAMPLE = Regions(14, 10, (11, 14), (Span(2, 5, "calculation"), Span(6, 8, "sentence")))


def by_part(made):
    """Weights of free reasoning, first span, second span, answer."""
    for part in (made[[0, 1, 5, 8, 9]], made[2:5], made[6:8], made[10:]):
        assert np.ptp(part) < 1e-12
    return made[[0, 2, 6, 10]]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("counterfactual", [0.86007, 1.33788, 0.83618, 1.00341]),
        ("inverted", [1.05778, 0.43556, 1.08889, 1.30667]),
        ("vanilla", [1, 1, 1, 1]),
    ],
)
def test_worked_examples(mode, expected):
    made = credit.weights(EXAMPLE, np.array([6.0, -0.2]), mode)
    np.testing.assert_allclose(by_part(made), expected, atol=5e-6)
    assert made.mean() == pytest.approx(1)


def test_importance_of_the_worked_example():
    found = credit.importance(EXAMPLE, np.array([6.0, -0.2]))
    np.testing.assert_allclose(found[[0, 2, 6]], [0.52381, 1, 0.5], atol=5e-6)
    assert (credit.importance(EXAMPLE, np.zeros(2)) == 0.5).all()


def test_matched_controls_keep_the_range():
    drops = np.array([6.0, -0.2])
    method = credit.weights(EXAMPLE, drops)[:10]
    reversed_ = credit.weights(EXAMPLE, drops, "reversed")[:10]
    shuffled = credit.weights(EXAMPLE, drops, "shuffled", np.random.default_rng(0))[:10]
    for made in (method, reversed_, shuffled):
        assert made.max() / made.min() == pytest.approx(1.6)
    assert (np.argsort(reversed_[[0, 2, 6]]) == np.argsort(-method[[0, 2, 6]])).all()
    np.testing.assert_allclose(shuffled, credit.weights(EXAMPLE, drops[::-1])[:10])


regions_ = st.builds(
    lambda reasoning, answer, cuts: Regions(
        reasoning + answer, reasoning, (reasoning + 1, reasoning + answer) if answer > 1 else None,
        tuple(Span(a, b, "sentence") for a, b in zip(cuts[::2], cuts[1::2], strict=False) if b <= reasoning and answer > 1),
    ),
    st.integers(0, 30), st.integers(0, 6), st.lists(st.integers(0, 30), unique=True, max_size=10).map(sorted),
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(regions_, st.sampled_from(credit.MODES), st.integers(0, 99), st.data())
def test_credit_is_conserved(region, mode, seed, data):
    drops = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(region.spans), max_size=len(region.spans))))
    made = credit.weights(region, drops, mode, np.random.default_rng(seed))
    assert made.shape == (region.length,)
    assert (made > 0).all()
    if region.length:
        assert made.mean() == pytest.approx(1)
    if region.answer is None:
        assert (made == 1).all()
    np.testing.assert_array_equal(made, credit.weights(region, drops, mode, np.random.default_rng(seed)))


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_a_shuffle_moves_something_and_loses_nothing(n, seed):
    drops = np.arange(n, dtype=float)
    made = credit._shuffled(drops, np.random.default_rng(seed))
    assert (made != drops).any()
    assert (np.sort(made) == drops).all()


def test_bad_modes_are_refused():
    with pytest.raises(ValueError, match="unknown mode 'uniform': choose one of counterfactual, vanilla"):
        credit.weights(EXAMPLE, np.zeros(2), "uniform")
    for mode in ("random", "shuffled"):
        with pytest.raises(ValueError, match=f"mode '{mode}' needs rng"):
            credit.weights(EXAMPLE, np.zeros(2), mode)


# All of it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stories(tiny):
    tokenizer = word_problems.tokenizer()
    made = word_problems.problems(6, filler=1.0)
    prompts = [tokenizer(problem.question)["input_ids"][-12:] for problem in made]
    completions = [[*tokenizer(problem.solution)["input_ids"][-40:], tokenizer.eos_token_id] for problem in made]
    return tiny, tokenizer, prompts, completions


def test_credit_of_a_batch_is_that_of_each_alone(stories):
    model, tokenizer, prompts, completions = stories
    prompts, completions = [*prompts, prompts[0]], [*completions, completions[0]]
    found = credit.credit(model, tokenizer, prompts, completions)
    assert found.weights.shape == (7, max(map(len, completions)))
    torch.testing.assert_close(found.weights[0], found.weights[6], rtol=0, atol=0)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        alone = credit.credit(model, tokenizer, [prompt], [completion])
        n = len(completion)
        torch.testing.assert_close(found.weights[i, :n], alone.weights[0], rtol=1e-3, atol=1e-4)
        assert (found.weights[i, n:] == 1).all()
        assert found.weights[i, :n].mean().item() == pytest.approx(1, abs=1e-5)
        assert len(found.drops[i]) == len(found.regions[i].spans) > 0


@pytest.mark.parametrize("mode", credit.MODES)
def test_every_mode_of_a_batch(stories, mode, monkeypatch):
    model, tokenizer, prompts, completions = stories
    passes = []
    monkeypatch.setattr(credit, "_scores", lambda *_, real=credit._scores: passes.append(1) or real(*_))
    runs = [
        credit.credit(model, tokenizer, prompts, completions, mode=mode, rng=np.random.default_rng(3)).weights
        for _ in range(2)
    ]
    assert torch.equal(*runs)
    assert bool(passes) == (mode not in ("vanilla", "random"))
    assert (runs[0] == 1).all() == (mode == "vanilla")


def test_completions_without_answer_or_text(stories):
    model, tokenizer, prompts, _ = stories
    words = tokenizer(" let us go on step by step. 3 + 4 = 7.")["input_ids"]
    found = credit.credit(model, tokenizer, prompts[:2], [words, []])
    assert (found.weights == 1).all()
    assert [len(drop) for drop in found.drops] == [0, 0]
    assert credit.credit(model, tokenizer, [], []).weights.shape == (0, 0)
