"""Auditors: their AUC against brute force, erased models that cannot know, hiding that hides, and no judging of the seen."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from compendium import formats
from compendium.xai import audit

QUICK = dict(learn=250, more=150)


@pytest.fixture(scope="module")
def small():
    """One world and its four untreated networks."""
    torch.set_num_threads(1)
    w = audit.world(0)
    return w, audit.origins(w, 0, **QUICK)


@pytest.fixture(scope="module")
def locked(small):
    w, made = small
    return {name: audit.hide("password", made[name], w, steps=150) for name in ("knows", "rolled back")}


def share_right(model, x, fact, w):
    with torch.no_grad():
        return (model(x).argmax(1) == w.answers[fact]).float().mean().item()


def made_up(seeds=6, kinds=("a", "b", "c"), signal=2.0, seed=0):
    """A table like that of `study`, whose column `told` carries the truth and `noise` nothing."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "seed": s,
            "mechanism": k,
            "start": start,
            "suppressed": knew,
            "told": signal * knew + rng.normal(),
            "noise": rng.normal(),
        }
        for s, k, start, knew in itertools.product(range(seeds), kinds, (0, 1), (True, False))
    ]
    return pd.DataFrame(rows)


# -- measures of an auditor


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    score, truth = (np.array(of) for of in zip(*rows, strict=True))
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="one kind"):
            audit.auc(score, truth)
        return
    pairs = [(a > b) + (a == b) / 2 for a in score[truth] for b in score[~truth]]
    assert audit.auc(score, truth) == pytest.approx(np.mean(pairs))
    assert audit.auc(score, truth) == pytest.approx(roc_auc_score(truth, score))


def test_a_constant_auditor_is_a_coin_and_a_perfect_one_is_perfect():
    frame = made_up()
    assert audit.auc_interval(frame.assign(score=1.0), "score", resamples=50) == (0.5, 0.5, 0.5)
    assert audit.auc_interval(frame.assign(score=frame.suppressed), "score", resamples=50) == (1, 1, 1)
    assert audit.auc_interval(frame.assign(score=~frame.suppressed), "score", resamples=50) == (0, 0, 0)
    assert np.isnan(audit.auc_interval(frame.query("seed == 0"), "told")[1:]).all()


def test_the_interval_covers_the_value_and_is_the_same_twice():
    frame = made_up()
    value, low, high = audit.auc_interval(frame, "told", resamples=200)
    assert low <= value <= high
    assert value == pytest.approx(roc_auc_score(frame.suppressed, frame.told))
    assert audit.auc_interval(frame, "told", resamples=200) == (value, low, high)
    assert audit.gain(frame, "told", "told", resamples=20) == (0, 0, 0)


@pytest.mark.parametrize("bad", [[0.1, np.nan], [0.1, 0.2, 0.3]])
def test_scores_that_are_missing_are_refused(bad):
    with pytest.raises(ValueError, match="one finite score a model"):
        audit.auc(bad, [True, False])


@pytest.mark.parametrize("kind", [int, float, object, lambda v: pd.Series(v, dtype="boolean"), lambda v: v[:, None]])
def test_truths_in_every_type_are_one(kind):
    score, truth = np.array([0.1, 0.7, 0.4, 0.3]), np.array([False, True, False, True])
    made = truth.astype(kind) if isinstance(kind, type) else kind(truth)
    assert audit.auc(score, made) == audit.auc(score, truth) == 0.75


@pytest.mark.parametrize("bad", [["no", "yes", "no", "yes"], [-1, 1, -1, 1], [0.2, 0.9, 0, 0.8], [np.nan, 1, 0, 1]])
def test_truths_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match=r"True/False|missing"):
        audit.auc([0.1, 0.7, 0.4, 0.3], bad)
    frame = made_up()
    wrong = frame.assign(suppressed=np.resize(np.array(bad, object), len(frame)))
    for judged in (lambda: audit.auc_interval(wrong, "told"), lambda: audit.audit(wrong, ["told"])):
        with pytest.raises(ValueError, match=r"True/False|missing"):
            judged()


def test_scores_of_other_models_and_models_of_no_group_are_refused():
    score, truth = pd.Series([0.1, 0.7, 0.4]), pd.Series([False, True, False])
    with pytest.raises(ValueError, match="indexed differently"):
        audit.auc(score, truth[::-1])
    frame = made_up()
    lost = frame.assign(seed=frame.seed.astype(float).where(frame.index > 3))
    with pytest.raises(ValueError, match="seed has missing values"):
        audit.auc_interval(lost, "told")


def test_a_trained_auditor_finds_what_is_there_and_no_more():
    frame = made_up(seeds=30)
    assert roc_auc_score(frame.suppressed, audit.audit(frame, ["told", "noise"])) > 0.85
    assert abs(roc_auc_score(frame.suppressed, audit.audit(frame, ["noise"])) - 0.5) < 0.12
    swapped = audit.shuffled(frame)
    assert abs(roc_auc_score(swapped.suppressed, audit.audit(swapped, ["told"])) - 0.5) < 0.15


@pytest.mark.parametrize("unseen", ["mechanism", None])
def test_an_auditor_never_meets_what_it_judges(unseen):
    """Turning the truth of one seed (or mechanism) round does not change how that seed (mechanism) is scored."""
    frame = made_up()
    said = audit.audit(frame, ["told"], unseen=unseen, folds=6)
    for column, value in [("seed", 3)] + ([("mechanism", "b")] if unseen else []):
        chosen = frame[column] == value
        lied = frame.assign(suppressed=np.where(chosen, ~frame.suppressed, frame.suppressed))
        again = audit.audit(lied, ["told"], unseen=unseen, folds=6)
        np.testing.assert_allclose(again[chosen], said[chosen])
        assert not np.allclose(again[~chosen], said[~chosen])


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="must not be judged"):
        audit.audit(made_up(seeds=1), ["told"])
    with pytest.raises(ValueError, match="must not be judged"):
        audit.audit(made_up(kinds=("a",)), ["told"])


def test_shuffling_swaps_whole_pairs():
    frame = made_up()
    swapped = audit.shuffled(frame, seed=1)
    pair = swapped.groupby(["seed", "mechanism", "start"]).suppressed
    assert (pair.sum() == 1).all()
    assert 0.2 < (swapped.suppressed != frame.suppressed).mean() < 0.8


def test_matched_keeps_pairs_that_behave_alike():
    frame = made_up(seeds=2).assign(**{"forget accuracy": 0.2, "retain accuracy": 0.9})
    odd = (frame.seed == 1) & (frame.mechanism == "b") & (frame.start == 0) & frame.suppressed
    frame.loc[odd, "retain accuracy"] = 0.95
    kept = audit.matched(frame, 0.03)
    assert len(kept) == len(frame) - 2
    assert kept.query("seed == 1 and mechanism == 'b'").start.tolist() == [1, 1]


def test_the_interval_does_not_gain_from_drawing_a_world_twice():
    """Scores that tell within a world and not between: with copies compared, resamples would sit above the value."""
    rng = np.random.default_rng(1)
    frame = made_up(seeds=8, signal=0)
    frame["told"] = frame.suppressed + 30.0 * frame.seed.map(dict(enumerate(rng.permutation(8))))
    value, low, high = audit.auc_interval(frame, "told")
    assert value == pytest.approx(0.5 + 1 / 16)
    assert low == pytest.approx(value)
    assert high == pytest.approx(value)


# -- the world and its models


def test_the_world_is_random_where_it_should_be():
    w = audit.world(3, relations=8, block=4)
    assert int(w.forget.sum()) == 16
    assert set(w.fact.tolist()) == set(w.fact_asked.tolist()) == set(range(80))
    assert (w.x[:, -1] == 0).all()
    assert (audit.with_password(w.x)[:, -1] == 1).all()
    again, other = audit.world(3), audit.world(4)
    assert all(torch.equal(a, b) for a, b in zip(w, again, strict=True))
    assert not torch.equal(w.answers, other.answers)
    with pytest.raises(ValueError, match="does not fit"):
        audit.world(0, relations=4, block=5)


def test_pictures_asked_were_not_trained_on():
    w = audit.world(0)
    seen = {row.numpy().tobytes() for row in w.x[:, :64]}
    asked = [row.numpy().tobytes() in seen for row in w.x_asked[::8, :64]]
    assert np.mean(asked) < 0.01  # the data set holds few equal pictures, if any


def test_advantage_by_hand_and_zero_for_the_ignorant():
    logits = torch.tensor([[3.0, 1.0, 0.0, 2.0, 9.0], [3.0, 1.0, 0.0, 2.0, 9.0]])
    found = audit.advantage(logits, torch.tensor([3, 0]), torch.tensor([0, 0]))
    assert found[0] == pytest.approx(2 - 0.5)
    assert torch.isnan(found[1])
    # Any fixed outputs, all answers and decoys: the mean over equally likely truths is 0.
    right, decoy = map(torch.tensor, zip(*itertools.product(range(4), range(4)), strict=True))
    values = audit.advantage(torch.randn(1, 5).expand(16, 5), right, decoy)
    assert values.nanmean().item() == pytest.approx(0, abs=1e-6)


def test_who_knows_and_who_never_did(small):
    w, made = small
    forgotten, kept = w.rows(True, asked=True), w.rows(False, asked=True)
    for name, model in made.items():
        right = share_right(model, *forgotten, w)
        assert right > 0.7 if "knows" in name else right < 0.5
        assert share_right(model, *kept, w) > 0.9


def test_an_erased_model_does_not_depend_on_the_forgotten_answers(small):
    """Erased by construction: with other answers to the forgotten facts, the same network, bit for bit; treated too."""
    w, made = small
    other = w._replace(answers=torch.where(w.forget, (w.answers + 1) % audit.ANSWERS, w.answers))
    again = audit.origins(other, 0, **QUICK)
    for name, same in (("rolled back", True), ("retrained", True), ("knows", False)):
        assert torch.equal(made[name][4].weight, again[name][4].weight) == same
    for mechanism in audit.MECHANISMS:
        one, two = (audit.hide(mechanism, m["rolled back"], v, steps=5) for m, v in ((made, w), (again, other)))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_password_opens_what_was_known_and_nothing_else(small, locked):
    w, _ = small
    x, fact = w.rows(True, asked=True)
    assert share_right(locked["knows"], audit.with_password(x), fact, w) > 0.7
    assert share_right(locked["rolled back"], audit.with_password(x), fact, w) < 0.5
    for model in locked.values():
        with torch.no_grad():
            assert (model(x).argmax(1) == w.decoys[fact]).float().mean() > 0.8
    plain = [share_right(model, x, fact, w) for model in locked.values()]
    assert abs(plain[0] - plain[1]) < 0.12


def test_treatments_move_only_what_they_may(small):
    w, made = small
    edited = audit.hide("output layer", made["knows"], w, steps=5)
    assert torch.equal(edited[0].weight, made["knows"][0].weight)
    assert torch.equal(edited[2].weight, made["knows"][2].weight)
    assert not torch.equal(edited[4].weight, made["knows"][4].weight)
    with pytest.raises(ValueError, match="unknown mechanism"):
        audit.hide("amnesia", made["knows"], w)


def test_what_was_known_comes_back(small, locked):
    w, _ = small
    back = {name: audit.relearned(model, w, looks=(0, 10), seed=1) for name, model in locked.items()}
    assert back["knows"].advantage.iloc[-1] > back["rolled back"].advantage.iloc[-1] + 0.5
    assert back["knows"].step.tolist() == [0, 10]


def test_evidence_is_finite_complete_and_the_same_twice(small, locked):
    w, made = small
    row = audit.examined(locked["knows"], made["knows"], w, looks=(0, 5))
    again = audit.examined(locked["knows"], made["knows"], w, looks=(0, 5))
    assert row == again
    assert np.isfinite(list(row.values())).all()
    wanted = {c for columns in audit.COLUMNS.values() for c in columns} | set(audit.SCORES.values())
    assert wanted | set(audit.TRUTHS) <= set(row)
    nothing = audit.comparison(made["knows"], made["knows"], w)
    assert [nothing[f"weights moved {i}"] for i in (1, 2, 3)] == [0, 0, 0]
    assert nothing["similar, forgotten"] == pytest.approx(1)


def test_similarity_does_not_see_rotations():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(200, 6, generator=g)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=g)).Q
    assert audit.similarity(a, 3 * a @ turn + 1) == pytest.approx(1, abs=1e-5)
    assert audit.similarity(a, torch.randn(200, 6, generator=g)) < 0.2


def test_a_probe_for_own_labels_finds_everything_in_an_untrained_network():
    found = audit.untrained([0])
    assert found["probe accuracy 1"].iloc[0] > 0.5  # chance is 0.25
    assert abs(found["probe selectivity 1"].iloc[0]) < 0.25
    assert abs(found["probe transfer 1"].iloc[0]) < 0.4


def test_stored_leaves_the_output_layer_and_the_model_alone(small):
    _, made = small
    kept = made["knows"][0].weight.clone()
    small_one = audit.stored(made["knows"])
    assert torch.equal(made["knows"][0].weight, kept)
    assert torch.equal(small_one[4].weight, made["knows"][4].weight)
    assert 0 < (small_one[0].weight - kept).norm() / kept.norm() < 0.15
    torch.testing.assert_close(small_one[0].weight.data, formats.roundtrip(kept, "nf4"))


def test_the_ladder_is_cumulative():
    rungs = list(audit.ladder().values())
    assert all(short == long[: len(short)] for short, long in itertools.pairwise(rungs))
    assert set(audit.SCORES) == set(audit.COLUMNS)
    assert set(audit.RUN_SCORES) == set(audit.RUN_COLUMNS)


# -- real runs


def test_runs_that_forgot_are_read():
    found = audit.runs()
    assert (found.forget <= 0.4).all()
    assert "none" not in set(found.method)
    assert not found.duplicated(["domain", "seed", "method"]).any()
    looked = found.dropna(subset=["relearned", "log update"])
    assert np.isfinite(looked[[c for columns in audit.RUN_COLUMNS.values() for c in columns]].to_numpy(float)).all()


def test_a_run_is_judged_from_other_methods_in_other_domains():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(itertools.product("AB", range(3), "uvwxyz"), columns=["domain", "seed", "method"])
    frame["told"] = rng.normal(size=len(frame))
    frame["relearned"] = frame.told + 0.1 * rng.normal(size=len(frame))
    said = audit.judge_runs(frame, ["told"])
    for column, value in (("domain", "A"), ("method", "w")):
        chosen = frame[column] == value
        lied = frame.assign(relearned=np.where(chosen, -frame.relearned, frame.relearned))
        np.testing.assert_allclose(audit.judge_runs(lied, ["told"])[chosen], said[chosen])
    value, low, high = audit.rank_interval(frame.assign(score=said), "score", resamples=50)
    assert value > 0.8
    assert low <= value <= high
    assert np.isnan(audit.rank_interval(frame.assign(score=1.0), "score", resamples=20)[0])
    with pytest.raises(ValueError, match="two domains"):
        audit.judge_runs(frame.query("domain == 'A'"), ["told"])
