"""The audit: right about an untouched model and a broken one, and clear about what it cannot judge."""

import copy
import json

import pytest
import torch

from compendium import edits, facts
from compendium.unlearning import __main__ as command
from compendium.unlearning import audit, domains, mansu


@pytest.fixture(scope="module")
def europe():
    return facts.load().query("relation == 'country_capital' and domain == 'Europe'").iloc[:8]


def test_a_model_that_lost_everything_is_not_cleanly_unlearned(embedded, europe, tmp_path):
    model, tokenizer = embedded
    slope = mansu.gradient(model, domains.answers(tokenizer, facts.questions(split="train", table=europe)))
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
    audit.draw(found).savefig(tmp_path / "audit.png")


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
    found = domains.others(facts.load(), europe, n=30)
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
