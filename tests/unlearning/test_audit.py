"""The audit: right about an untouched model and a broken one, and clear about what it cannot judge."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers

from compendium import edits, facts, formats, models
from compendium.unlearning import __main__ as command
from compendium.unlearning import audit, audit_report, forget_set, mansu


@pytest.fixture(scope="module")
def europe():
    return facts.load().query("relation == 'country_capital' and domain == 'Europe'").iloc[:8]


def test_a_model_that_lost_everything_is_not_cleanly_unlearned(embedded, europe, tmp_path):
    model, tokenizer = embedded
    slope = mansu.gradient(model, forget_set.answers(tokenizer, facts.questions(split="train", table=europe)))
    edited = copy.deepcopy(model)
    weights = dict(edited.named_parameters())
    with torch.no_grad():
        for name, part in slope.items():
            weights[f"{name}.weight"].sub_(0.02 * part.sign())
    found = audit.audit(model, edited, tokenizer, europe, n_retain=6, n_pairs=6, ig_steps=1, stored=("q8_0",))
    assert not found["properties"]["retained"]
    assert found["measured"]["forget, base"] > 0.8 > found["measured"]["forget"]
    assert found["measured"]["codes that flip in NF4"] > 0.1
    assert found["measured"]["q8_0 gap"] == pytest.approx(
        found["measured"]["forget, q8_0"] - found["measured"]["forget"]
    )
    assert set(found["properties"]) == set(found["settled"]) == {"forgotten", "retained", "permanent", "changed inside"}
    json.dumps(found)
    audit_report.draw(found).savefig(tmp_path / "audit.png")


def test_an_untouched_model_has_forgotten_nothing(embedded, europe):
    model, tokenizer = embedded
    found = audit.audit(
        model, copy.deepcopy(model), tokenizer, europe, n_retain=6, n_pairs=6, ig_steps=1, stored=("q8_0",)
    )
    assert found["properties"] == {"forgotten": False, "retained": True, "permanent": True, "changed inside": False}
    assert found["measured"]["retain change"] == 0
    assert found["measured"]["CAD cosine"] == pytest.approx(0, abs=1e-5)
    low, high = found["intervals"]["retain change"]
    assert low < 0 < high  # a handful of facts proves little
    assert not found["settled"]["retained"]


def test_others_are_neither_the_facts_nor_the_facts_backwards(europe):
    found = forget_set.others(facts.load(), europe, n=30)
    assert len(found) == 30
    assert found.merge(europe[["relation", "subject"]]).empty
    assert not set(found.subject) & set(europe.object)
    assert (found.relation == "country_capital").sum() == 15


def test_different_architectures_and_broken_weights_are_refused(tiny):
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"the edited checkpoint holds NaN or infinite values in model.layers.0.mlp"):
        audit.check(tiny, other)
    other.model.layers = other.model.layers[:1]
    with pytest.raises(ValueError, match=r"not two versions of one model: model.layers.1.* missing in the edited"):
        audit.check(tiny, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder, table: table.write_text("relation,subject,object,domain\n"), "holds no facts"),
        (lambda folder, table: table.write_text("subject,object\nFrance,Paris\n"), "lacks column 'relation'"),
        (lambda folder, table: table.unlink(), "No such file"),
        (lambda folder, table: [p.unlink() for p in folder.glob("tokenizer*")], "the edited checkpoint: cannot load"),
    ],
)
def test_the_command_says_what_is_wrong(tiny, embedded, tmp_path, change, message):
    folder, table = tmp_path / "edited", tmp_path / "facts.csv"
    edits.export(tiny, embedded[1], {}, folder)
    facts.load().iloc[:3].to_csv(table, index=False)
    change(folder, table)
    with pytest.raises(SystemExit, match=message):
        command.main(["audit", "--base", "embedded", "--edited", str(folder), "--facts", str(table)])


def test_the_command_refuses_a_folder_with_another_model(tiny, embedded, tmp_path):
    edits.export(tiny, embedded[1], {}, tmp_path / "edited")
    facts.load().iloc[:3].to_csv(tmp_path / "facts.csv", index=False)
    with pytest.raises(SystemExit, match="error: the checkpoints are not two versions of one model"):
        command.main(
            [
                "audit",
                "--base",
                "embedded",
                "--edited",
                str(tmp_path / "edited"),
                "--facts",
                str(tmp_path / "facts.csv"),
            ]
        )


SMALL = dict(n_retain=6, n_pairs=6, ig_steps=1, stored=("q8_0",))
NAMES = ("forgotten", "retained", "permanent", "changed inside")


@pytest.fixture
def command_of(embedded, europe, tmp_path, monkeypatch):
    """The command on the embedded model and itself, few questions; returns its exit status and what it wrote."""
    load, judged = models.load, audit.judged
    monkeypatch.setattr(models, "load", lambda name, **o: embedded if name == "embedded" else load(name, **o))
    monkeypatch.setattr(audit, "judged", lambda *models, stored, memory: judged(*models, **SMALL))

    def run(n: int, out="audit"):
        europe.iloc[:n].to_csv(tmp_path / "facts.csv", index=False)
        with pytest.raises(SystemExit) as ended:
            command.main(
                [
                    "audit",
                    "--base",
                    "embedded",
                    "--edited",
                    "embedded",
                    "--facts",
                    str(tmp_path / "facts.csv"),
                    "--out",
                    str(tmp_path / out),
                ]
            )
        file = tmp_path / out / "audit.json"
        return ended.value.code, json.loads(file.read_text()) if file.exists() else None

    return run


def test_one_fact_is_judged_as_far_as_it_goes(command_of, tmp_path, capsys):
    status, found = command_of(1)
    assert status == audit.UNJUDGED
    assert [found["properties"][name] for name in NAMES] == [False, True, True, None]
    assert found["settled"]["changed inside"] is None
    assert set(found["not judged"]) == {"changed inside"}
    assert found["measured"]["q8_0 gap"] == 0
    assert (tmp_path / "audit" / "audit.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "changed inside not judged: no two facts have subjects of one length" in said
    assert "1 of 4 properties not judged: changed inside" in said


def test_the_inside_of_a_model_that_is_not_laid_open_is_read_by_its_nodes(embedded, europe, monkeypatch):
    model, tokenizer = embedded
    other = type("OtherForCausalLM", (type(model),), {})
    edited = copy.deepcopy(model)
    for one in (model, edited):
        monkeypatch.setattr(one, "__class__", other)
    steps = [copy.deepcopy(found) for found in audit.judged(model, edited, tokenizer, europe, **SMALL)]
    assert "OtherForCausalLM is not supported" in steps[0]["inside read by"], "said first, not last"
    assert [steps[-1]["properties"][name] for name in NAMES] == [False, True, True, False]
    monkeypatch.setattr(model, "__class__", other.__mro__[1])
    laid_open = audit.audit(model, model, tokenizer, europe, **SMALL)
    floor = "CAD cosine, noise floor"
    assert laid_open["inside read by"] == "edges"
    assert steps[-1]["measured"][floor] == pytest.approx(laid_open["measured"][floor], rel=1e-2)


def test_a_model_whose_inside_cannot_be_read_is_judged_from_outside(embedded, europe, monkeypatch):
    model, tokenizer = embedded
    other = type("OtherForCausalLM", (type(model),), {})
    edited = copy.deepcopy(model)
    for one in (model, edited):
        monkeypatch.setattr(one, "__class__", other)

    def refused(model):
        raise ValueError("the blocks of this OtherForCausalLM are not found")

    monkeypatch.setattr(audit, "Nodes", refused)
    steps = [copy.deepcopy(found) for found in audit.judged(model, edited, tokenizer, europe, **SMALL)]
    assert "OtherForCausalLM are not found" in steps[0]["not judged"]["changed inside"], "said first, not last"
    assert [steps[-1]["properties"][name] for name in NAMES] == [False, True, True, None]
    assert steps[0]["properties"]["retained"] is None
    assert steps[0]["not judged"]["retained"] == audit.AHEAD
    audit_report.draw(steps[0])
    assert "OtherForCausalLM" in audit_report.summary(steps[-1])


def test_what_was_judged_before_an_interruption_is_there(command_of, europe, tmp_path, monkeypatch):
    """Whatever ends it, at whatever property."""

    def ends(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(audit.probing, "attribute", ends)
    status, found = command_of(8)
    assert status.startswith("interrupted")
    assert [found["properties"][name] for name in NAMES] == [False, True, True, None]
    assert found["not judged"] == {"changed inside": audit.AHEAD}
    monkeypatch.setattr(formats, "roundtrip", ends)
    status, found = command_of(8)
    assert [found["properties"][name] for name in NAMES] == [False, True, None, None]


def test_one_format_that_cannot_hold_the_model_leaves_the_others(embedded, europe, monkeypatch):
    model, tokenizer = embedded
    roundtrip = formats.roundtrip

    def fails(weight, fmt):
        if fmt == "fp4":
            raise ValueError("its last dimension is no multiple of 64")
        return roundtrip(weight, fmt)

    monkeypatch.setattr(formats, "roundtrip", fails)
    given = SMALL | dict(stored=("fp4", "q8_0"))
    found = audit.audit(model, copy.deepcopy(model), tokenizer, europe.iloc[:2], **given)
    assert found["measured"]["q8_0 gap"] == 0
    assert found["properties"]["permanent"] is None, "it holds in one format only"
    assert "multiple of 64" in found["not judged"]["permanent, fp4"]
    assert "fp4" in found["not judged"]["permanent"]


def test_numbers_that_are_not_finite_are_no_verdict(embedded, europe, monkeypatch):
    """argmax takes NaN for the largest number: a broken model would answer everything rightly."""
    model, tokenizer = embedded
    score = facts.score

    def broken(of, *arguments, **options):
        found = score(of, *arguments, **options)
        return found.assign(margin=float("nan"), correct=True) if of is not model else found

    monkeypatch.setattr(facts, "score", broken)
    with pytest.raises(ValueError, match="the edited model gives answers probabilities that are NaN"):
        audit.audit(model, copy.deepcopy(model), tokenizer, europe.iloc[:2], **SMALL)


def test_what_can_be_refused_is_refused_before_any_work(tiny, embedded, europe, tmp_path):
    for wrong, message in (
        (dict(stored=("nf5",)), "unknown format 'nf5'"),
        (dict(n_pairs=0), "n_pairs is 0"),
        (dict(ig_steps=0), "ig_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            audit.audit(tiny, tiny, embedded[1], europe, **SMALL | wrong)
    (tmp_path / "audit.json").write_text('{"mine": 1}')
    (tmp_path / "picture").mkdir()
    (tmp_path / "picture" / "audit.png").write_bytes(b"mine")
    for out in (tmp_path, tmp_path / "picture", tmp_path / "audit.json", tmp_path / "audit.json" / "below"):
        with pytest.raises(ValueError, match=r"is not an audit's|is no folder"):
            audit.run("embedded", "embedded", str(tmp_path / "none.csv"), out=str(out))
    assert (tmp_path / "audit.json").read_text() == '{"mine": 1}'


FAMILIES = {
    "Qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config, dict(head_dim=24)),
    "Gemma 3": (
        transformers.Gemma3ForCausalLM,
        transformers.Gemma3TextConfig,
        dict(head_dim=24, sliding_window=512, layer_types=["sliding_attention", "full_attention"] * 2, pad_token_id=0),
    ),
    "GPT-2": (transformers.GPT2LMHeadModel, transformers.GPT2Config, None),
    "Pythia": (transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig, {}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_property_of_other_families_is_judged_and_counts_are_right(name, embedded, tmp_path):
    """A random model knows some facts by chance; the edit turns its last MLP's output round."""
    kind, config, given = FAMILIES[name]
    tokenizer = embedded[1]
    sizes = dict(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
    if given is None:
        sizes |= dict(n_embd=64, n_layer=4, n_head=4, n_positions=256)
    else:
        grouped = {} if name == "Pythia" else {"num_key_value_heads": 2}
        sizes |= (
            dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4) | grouped | given
        )
    torch.manual_seed(0)
    made = kind(config(**sizes)).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 2:
                p.copy_(torch.randn_like(p) * 0.2)
    made.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base, _ = models.load(str(tmp_path / "base"))
    edited = copy.deepcopy(base)
    last = list(models.linear_layers(edited).values())[-1]
    with torch.no_grad():
        last.weight.neg_()
    edits.export(edited, tokenizer, {}, tmp_path / "edited")
    again, _ = models.load(str(tmp_path / "edited"))
    table = facts.load().query("relation == 'country_capital'").iloc[:60]
    found = audit.audit(base, again, tokenizer, table, n_retain=60, n_pairs=6, ig_steps=1, stored=("nf4", "q4_0"))
    assert not found["not judged"]
    assert set(found["properties"]) == set(NAMES)
    assert None not in found["properties"].values()
    known = facts.known(base, tokenizer, table)
    assert found["facts"]["to forget"] == len(known) > 0
    asked = facts.questions(split="heldout", table=known)
    right = []
    with torch.no_grad():
        for row in facts.encode(tokenizer, asked.prompt, asked.options):
            said = []
            for option in row.options:
                logp = again(torch.tensor([row.prompt + option])).logits[0].log_softmax(-1)
                start = len(row.prompt) - 1
                said.append(np.mean([logp[start + i, token].item() for i, token in enumerate(option)]))
            right.append(int(np.argmax(said)) == 0)
    by_fact = asked.assign(right=right).groupby(["relation", "subject"], sort=False).right.mean()
    assert found["measured"]["forget"] == pytest.approx(by_fact.mean())
    assert found["measured"]["codes that flip in NF4"] > 0
