"""What outputs of models mean: nets and functions in many dresses against one logistic model, and questions where due."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import nn

from compendium import models, xai
from compendium.xai import explain, images, metrics, synthetic

models.set_threads(1)
TABLE = synthetic.linear(300, seed=0)
FEW, REST, Y = TABLE.x[:12], TABLE.x[12:24], TABLE.y[:12]
MODEL = LogisticRegression().fit(TABLE.x[12:], TABLE.y[12:])
P = MODEL.predict_proba(FEW)
RIGHT = MODEL.score(FEW, Y)


def layer(*factors):
    """A linear layer whose outputs are these factors times the log-odds."""
    net = nn.Linear(8, len(factors), dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(np.outer(factors, MODEL.coef_[0])))
        net.bias.copy_(torch.tensor(np.multiply(factors, MODEL.intercept_[0])))
    return net


class Then(nn.Module):
    """A net followed by a function of its outputs."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function(self.net(x))


class Output(dict):
    """As transformers gives them."""

    __getattr__ = dict.get


two, one = layer(-0.5, 0.5), layer(1.0)
CERTAIN = {
    "logits": two, "softmax": nn.Sequential(two, nn.Softmax(-1)), "log-softmax": nn.Sequential(two, nn.LogSoftmax(1)),
    "nested softmax": nn.Sequential(nn.Identity(), nn.Sequential(two, nn.Softmax(1))),
    "functional softmax": Then(two, lambda z: z.softmax(-1)), "functional log": Then(two, lambda z: z.log_softmax(-1)),
    "by hand": Then(two, lambda z: z.exp() / z.exp().sum(1, keepdim=True)),
    "sigmoid": nn.Sequential(one, nn.Sigmoid()), "flat sigmoid": nn.Sequential(one, nn.Sigmoid(), nn.Flatten(0)),
    "functional sigmoid": Then(one, lambda z: torch.sigmoid(z)[:, 0]),
    "both of a sigmoid": Then(one, lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)),
    "one of a softmax": Then(two, lambda z: z.softmax(-1)[:, 1]),
    "dict": Then(two, lambda z: {"logits": z}), "output": Then(two, lambda z: Output(logits=z, loss=None)),
}  # fmt: skip
STATED = {
    "one logit": (one, "logit"), "flat logit": (Then(one, lambda z: z[:, 0]), "logits"),
    "logit in an output": (Then(one, lambda z: Output(logits=z)), "logit"),
    "probability": (Then(one, lambda z: 1 / (1 + (-z).exp())), "probability"),
    "log-probabilities": (Then(two, lambda z: z - z.logsumexp(1, keepdim=True)), "log-probabilities"),
    "function of one": (lambda x: MODEL.predict_proba(x)[:, 1], "probability"),
    "function of a column": (lambda x: MODEL.predict_proba(x)[:, 1:], "probabilities"),
    "decisions": (MODEL.decision_function, "logit"),
    "scores": (lambda x: np.outer(MODEL.decision_function(x), [-0.5, 0.5]), "logits"),
    "logs": (MODEL.predict_log_proba, "log-probabilities"), "frame": (lambda x: pd.DataFrame(MODEL.predict_proba(x)),
                                                                     "probabilities"),
}  # fmt: skip
CHOSEN = ["integrated gradients", "gradient", "input x gradient"]


def found(model, y=Y, **options):
    options.setdefault("explainers", ["shap"])
    return xai.report(model, FEW, y=y, background=REST, metrics=["deletion", "completeness gap"], **options)


@pytest.mark.parametrize("name", CERTAIN)
def test_nets_that_say_the_same_are_explained_alike(name):
    net = CERTAIN[name]
    np.testing.assert_allclose(explain.predictor(net)(FEW), P, atol=1e-9)
    run, right = (found(model, explainers=CHOSEN) for model in (net, two))
    assert run.accuracy == RIGHT
    for explainer in CHOSEN:
        np.testing.assert_allclose(run.attributions[explainer], right.attributions[explainer], atol=1e-7)
        direct = explain.EXPLAINERS[explainer](net, FEW, run.target, background=REST)
        np.testing.assert_allclose(direct, right.attributions[explainer], atol=1e-7)


@pytest.mark.parametrize("name", STATED)
def test_what_is_stated_counts(name):
    model, kind = STATED[name]
    np.testing.assert_allclose(explain.predictor(explain.stated(model, kind))(FEW), P, atol=1e-6)
    run, right = found(model, kind=kind), found(two)
    assert run.accuracy == RIGHT
    np.testing.assert_allclose(run.attributions["shap"], right.attributions["shap"], atol=1e-6)
    if isinstance(model, nn.Module):
        A, B = (explain.integrated_gradients(m, FEW, 1, background=REST) for m in (explain.stated(model, kind), two))
        np.testing.assert_allclose(A, B, atol=1e-7)
        assert metrics.mprt(explain.stated(model, kind), FEW, 1, explain.gradient).shape[0] == 12


def test_one_logit_and_its_raw_scores():
    model = explain.stated(one, "logit")
    z = MODEL.decision_function(FEW)
    np.testing.assert_allclose(explain.predictor(model, "logit")(FEW), np.stack([-z, z], 1))
    for name in ("shap", "deep shap", "deeplift", "integrated gradients"):
        for output, size in (("logit", 1), ("probability", 2)):
            A = explain.EXPLAINERS[name](model, FEW, 1, background=REST, output=output)
            B = explain.EXPLAINERS[name](two, FEW, 1, background=REST, output=output)
            np.testing.assert_allclose(A * size / 2, B, atol=1e-5)


def test_labels_tell_one_output_apart():
    sure = layer(3.0)  # beyond -1 to 2, so no answer that was fitted to 0 and 1
    assert found(sure).accuracy == RIGHT
    assert found(sure, y=Y == 1).accuracy == RIGHT
    assert found(lambda x: MODEL.predict_proba(x)[:, 1]).accuracy == RIGHT
    values = FEW @ MODEL.coef_[0]
    for model in (one, lambda x: x @ MODEL.coef_[0] + MODEL.intercept_[0]):
        run = found(model, y=values + MODEL.intercept_[0])
        assert run.score_name == "R2"
        assert run.score == pytest.approx(1)
        assert explain.predictor(explain.stated(model, "value"))(FEW).shape == (12, 1)


class Keras:
    def __call__(self, x):
        return self.predict(x)

    def predict(self, x):
        return MODEL.predict_proba(x)


class Booster:
    def predict(self, matrix):
        return np.zeros(len(matrix))


ASKED = {
    "one output": (one, None, "may be a value, a logit or a probability"),
    "one output of small numbers": (layer(0.1), Y, "may be a value, a logit"),
    "labels of -1 and 1": (one, 2 * Y - 1, "may be a value, a logit"),
    "function in 0 to 1": (lambda x: MODEL.predict_proba(x)[:, 1], None, "probability of class 1 or a value"),
    "decisions": (MODEL.decision_function, Y, "if it is the logit"),
    "scores of a function": (lambda x: x[:, :2], Y, "no probabilities"),
    "percentages": (lambda x: 100 * MODEL.predict_proba(x), Y, "no probabilities"),
    "labels": (lambda x: np.where(MODEL.predict(x) == 1, "a", "b"), Y, "no numbers"),
    "the same everywhere": (Then(two, lambda z: 0 * z + torch.tensor([0.3, 0.7])), Y, "may be logits or probabilities"),
    "several labels": (nn.Sequential(two, nn.Sigmoid()), Y, "each is a label of its own"),
    "softmax over rows": (nn.Sequential(two, nn.Softmax(0)), Y, "does not run over the classes"),
    "tuple": (Then(two, lambda z: (z, z)), Y, "returns tuple"), "dict": (Then(two, lambda z: {"p": z}), Y, "returns dict"),
    "sequence": (Then(two, lambda z: z[:, None]), Y, "rows, classes"),
    "two inputs": (nn.Bilinear(8, 8, 2), Y, "does not take rows of 8 features"),
    "Keras": (Keras(), Y, "pass a function of X"), "booster": (Booster(), Y, "pass a function of X"),
    "clusters": (KMeans(2, n_init=1).fit(REST), Y, "no probabilities"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_certain_is_asked_in_one_line(name):
    model, y, message = ASKED[name]
    with pytest.raises(ValueError, match=message) as asked:
        found(model, y=y)
    assert "\n" not in str(asked.value)


def test_wrong_statements_are_refused():
    for model, kind, message in (
        (two, "guess", "choose one of"),
        (MODEL, "logits", "says itself"),
        (two, "value", "2 values a row"),
        (two, "probabilities", "sum to 1"),
        (one, "log-probabilities", "nothing of class 0|sum to 1"),
        (MODEL.decision_function, "probability", "sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            found(model, kind=kind)


def test_an_untrained_net_of_logits_is_taken_as_one():
    for seed in range(5):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        with torch.no_grad():
            z = net(torch.tensor(FEW, dtype=torch.float32)).softmax(1).numpy()
        np.testing.assert_allclose(explain.predictor(net)(FEW), z, atol=1e-6)
    flat = Then(two, lambda z: 0 * z)
    np.testing.assert_array_equal(explain.predictor(flat)(FEW), 0.5)


def test_half_precision_is_too_coarse_for_slopes():
    net = nn.Linear(8, 2).bfloat16()
    assert explain.predictor(net)(FEW).shape == (12, 2)
    for name in ("gradient", "integrated gradients", "deep shap"):
        with pytest.raises(ValueError, match=r"pass net.float\(\)"):
            explain.EXPLAINERS[name](net, FEW, 1, background=REST)


def test_images_of_a_net_that_ends_in_softmax():
    torch.manual_seed(0)
    raw = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))
    soft, x = nn.Sequential(raw, nn.Softmax(1)), np.random.default_rng(0).uniform(size=(2, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(images.probabilities(soft, x), soft(torch.tensor(x)), atol=1e-7)
    for name in ("gradient", "deeplift", "guided backprop", "grad-cam", "lime", "relevance"):
        a, b = (images.EXPLAINERS[name](net, x, 1) for net in (soft, raw))
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(images.curves(soft, x, x, 1), images.curves(raw, x, x, 1), atol=1e-7)
    with pytest.raises(ValueError, match="one output"):
        images.gradient(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), x, 0)


@pytest.mark.parametrize(
    "change", [lambda p: p.clamp(1e-3, 0.99), lambda p: p + 1e-4, lambda p: (256 * p).floor() / 256]
)
def test_probabilities_that_were_changed_are_asked_about(change):
    net = Then(two, lambda z: change(z.softmax(-1)))
    with pytest.raises(ValueError, match="nearly sum to 1"):
        explain.predictor(net)(FEW)
    assert np.abs(explain.predictor(explain.stated(net, "probabilities"))(FEW) - P).max() < 0.02


def test_functions_that_give_labels_are_asked_about():
    three = LogisticRegression().fit(TABLE.x[12:], np.digitize(TABLE.x[12:, 0], [-0.5, 0.5]))
    y = three.predict(FEW)
    for labels in (None, y):
        with pytest.raises(ValueError, match="whole number"):
            xai.report(three.predict, FEW, y=labels, background=REST, explainers=["occlusion"])
    counts = lambda X: (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    few = dict(background=REST, explainers=["occlusion"], metrics=["deletion"])
    assert xai.report(counts, FEW, y=counts(FEW), kind="value", **few).score == 1
    assert xai.report(MODEL.predict, FEW, y=Y, **few).accuracy == RIGHT


def test_settling_what_outputs_mean_draws_no_random_numbers():
    """Layers that are put behind a net, and nets made of linear models, are not initialised by the global generator."""
    picture = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1), nn.Sigmoid())
    before = torch.random.get_rng_state()
    explain.predictor(CERTAIN["sigmoid"])(FEW)
    for model in (MODEL, CERTAIN["sigmoid"]):
        for name in ("gradient", "deep shap", "smoothgrad"):
            if explain.able(name, model):
                explain.EXPLAINERS[name](model, FEW, 1, background=REST)
    images.gradient(picture, np.ones((2, 1, 4, 4)), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
