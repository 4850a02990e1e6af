"""The comparison of attribution methods as units: what is planned, and edges that come back from a table."""

import pandas as pd
import pytest
import torch

from compendium.attribution.__main__ import main
from compendium.attribution.studies import circuits

GIVEN = dict(behaviours=["agreement", "greater_than"], n_pairs=2, seeds=[0, 3], steps=1, steps_tried=[1], shares=[0.1])


def test_a_unit_is_a_behaviour_and_a_sample():
    planned = circuits.planned(**GIVEN)
    assert [(unit["task"], unit["seed"]) for unit in planned] == [
        ("agreement", 0),
        ("agreement", 3),
        ("greater_than", 0),
        ("greater_than", 3),
    ]
    assert {unit["n_pairs"] for unit in planned} == {2}
    with pytest.raises(ValueError, match="unknown behaviour 'grammar': choose among country_capital"):
        circuits.planned(**GIVEN | {"behaviours": ["grammar"]})


def test_edges_of_a_table_are_those_that_were_kept():
    truth = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    places = truth.abs().flatten().topk(5).indices
    source, destination = torch.unravel_index(places, truth.shape)
    table = pd.DataFrame({"source": source, "destination": destination, "score": truth.flatten()[places]})
    found = circuits.edge_scores(table, truth.shape)
    assert (found != 0).sum() == 5
    torch.testing.assert_close(found[found != 0], truth[found != 0])
    assert circuits.overlap(found, truth, 5) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("behaviours: [agreement]\n", "n_pairs"),
        ("behaviour: [agreement]\n", "did you mean 'behaviours'"),
        ("behaviours: [grammar]\nn_pairs: 2\nseeds: [0]\nsteps: 1\nsteps_tried: [1]\nshares: [0.1]\n", "behaviour"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"^error: ") as error:
        main(["circuits", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out")])
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()
