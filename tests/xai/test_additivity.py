"""Sums that are promised are kept or refused; hooks that do not see an activation say so; nets are left as they were."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compendium import models, xai
from compendium.xai import explain, images, planted, relevance

models.set_threads(1)
RNG = np.random.default_rng(0)
X, BACKGROUND = RNG.normal(size=(10, 4)), RNG.normal(size=(20, 4))
PICTURES = RNG.uniform(size=(3, 1, 8, 8)).astype(np.float32)


class Table(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.first, self.second = first, second

    def forward(self, x):
        return self.c(self.second(self.b(self.first(self.a(x)))))


class Picture(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.drop, self.c, self.first, self.second = nn.Dropout(0.5), nn.Linear(256, 3), first, second

    def forward(self, x):
        return self.c(self.drop(self.second(self.b(self.first(self.norm(self.a(x))))).flatten(1)))


def twice(activation):
    return activation, activation


HIDDEN = {
    "F.relu": (F.relu, F.relu), "one F.relu": (nn.ReLU(), F.relu), "reused": twice(nn.ReLU()),
    "reused in place": twice(nn.ReLU(inplace=True)), "clamp": twice(lambda z: z.clamp(min=0)),
    "where": twice(lambda z: torch.where(z > 0, z, 0 * z)), "maximum": twice(lambda z: torch.maximum(z, 0 * z)),
    "F.gelu": twice(F.gelu), "GELU": (nn.GELU(), nn.GELU()), "SiLU": (nn.SiLU(), nn.SiLU()),
    "tanh": twice(torch.tanh), "reused tanh": twice(nn.Tanh()), "ReLU6": (nn.ReLU6(), nn.ReLU6()),
    "softplus": twice(F.softplus),
}  # fmt: skip


def net(kind, name):
    torch.manual_seed(0)
    return kind(*HIDDEN.get(name, (nn.ReLU(), nn.ReLU())))


def total(found, model, rows, base, target):
    with torch.no_grad():
        f = lambda x: model(torch.tensor(x, dtype=torch.float32))[:, target].double().numpy()
        return found.reshape(len(found), -1).sum(1), f(rows) - f(base).mean()


@pytest.mark.parametrize("name", [*HIDDEN, "modules"])
def test_deep_methods_add_up_or_refuse(name):
    model = net(Table, name)
    for explainer, base in (("deeplift", BACKGROUND.mean(0, keepdims=True)), ("deep shap", BACKGROUND)):
        for output in explain.OUTPUTS:
            ask = lambda: explain.EXPLAINERS[explainer](model, X, 1, background=BACKGROUND, output=output)  # noqa: B023
            if name == "modules" or (name, explainer) == ("GELU", "deep shap"):  # shap has a rule for the module
                predict = explain.predictor(model, output)
                np.testing.assert_allclose(ask().sum(1), predict(X)[:, 1] - predict(base)[:, 1].mean(), atol=1e-4)
                continue
            with pytest.raises(ValueError, match=r"module|in place") as refused:
                ask()
            assert "\n" not in str(refused.value)
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(hasattr(m, "x") or hasattr(m, "y") for m in model.modules())


@pytest.mark.parametrize("name", HIDDEN)
def test_hooks_on_images_refuse_what_they_cannot_see(name):
    model = net(Picture, name)
    for explainer in ("deeplift", "guided backprop", "guided grad-cam"):
        with pytest.raises(ValueError, match=r"called|no rule for|rule for ReLU") as refused:
            images.EXPLAINERS[explainer](model, PICTURES, 1)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_by_hand(inplace):
    model, plain = (net(Picture, "modules").eval() for _ in range(2))
    model.first.inplace = model.second.inplace = inplace
    for module in (plain.first, plain.second):
        module.register_full_backward_hook(lambda _, before, __: (before[0].clamp(min=0),))
    x = torch.tensor(PICTURES, requires_grad=True)
    plain(x)[:, 1].sum().backward()
    np.testing.assert_allclose(images.guided_backprop(model, PICTURES, 1), x.grad, atol=1e-6)
    assert not np.allclose(images.guided_backprop(model, PICTURES, 1), images.gradient(model, PICTURES, 1))
    np.testing.assert_allclose(*total(images.deeplift(model, PICTURES, 1), model, PICTURES, 0 * PICTURES, 1), atol=1e-4)


def test_pooling_as_a_function_is_refused_and_as_a_module_is_roughly_additive():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    A = images.deeplift(nn.Sequential(*layers), PICTURES, 1)
    sums, change = total(A, nn.Sequential(*layers), PICTURES, 0 * PICTURES, 1)
    assert np.abs(sums - change).max() < 0.2 * np.abs(change).max()

    class Functional(nn.Sequential):
        def forward(self, x):
            return self[4](self[3](F.max_pool2d(self[1](self[0](x)), 2)))

    with pytest.raises(ValueError, match="MaxPool2DWithIndices is called as a function"):
        images.deeplift(Functional(*layers), PICTURES, 1)


def test_integrated_gradients_say_when_steps_are_too_few():
    torch.manual_seed(0)
    model = Table(nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        model.c.weight *= 50  # a steep softmax
    with pytest.raises(ValueError, match="more than steps=1 are needed"):
        explain.integrated_gradients(model, X, 1, background=BACKGROUND, steps=1)
    A = explain.integrated_gradients(model, X, 1, background=BACKGROUND, steps=500)
    predict = explain.predictor(model)
    np.testing.assert_allclose(A.sum(1), predict(X)[:, 1] - predict(BACKGROUND.mean(0)[None])[0, 1], atol=0.02)
    assert explain.integrated_gradients(model, X, 1, background=BACKGROUND, steps=1, tolerance=np.inf).shape == X.shape
    with pytest.raises(ValueError, match="more than steps=1"):
        images.integrated_gradients(net(Picture, "modules"), PICTURES, 1, steps=1, tolerance=1e-4)


@pytest.mark.parametrize("name", ["modules", "F.relu"])
def test_images_leave_the_net_and_the_random_numbers_alone(name):
    """Batch norm's statistics, every module's mode, hooks, gradients, and the state of both generators."""
    model = net(Picture, name).train()
    model.norm.eval()
    before, modes = deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    still = deepcopy(model).eval()
    jobs = {e: lambda m, f=f: f(m, PICTURES, 1) for e, f in images.EXPLAINERS.items()}
    jobs["curves"] = lambda m: images.curves(m, PICTURES, PICTURES, 1)
    jobs["probabilities"] = lambda m: images.probabilities(m, PICTURES)
    for job in jobs.values():
        try:
            found = job(model)
        except ValueError:
            continue
        np.testing.assert_array_equal(found, job(still))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_tables_leave_every_module_in_its_mode():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    model[1].eval()
    before = deepcopy(model.state_dict())
    run = xai.report(model, X, background=BACKGROUND, metrics=["completeness gap"])
    assert run.failed == {}
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_relevance_refuses_a_forward_of_its_own():
    class More(nn.Sequential):
        def forward(self, x):
            return 2 * F.relu(super().forward(x))

    assert relevance.relevance(nn.Sequential(nn.Linear(4, 3)), X, 1).shape == X.shape
    with pytest.raises(ValueError, match="forward of its own"):
        relevance.relevance(More(nn.Linear(4, 3)), X, 1)


def test_layers_that_cannot_be_drawn_anew_are_named():
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    with pytest.raises(ValueError, match="without reset_parameters"):
        list(images.randomised(model))


def test_units_are_opened_only_where_every_activation_has_a_reader():
    linear = lambda: nn.Linear(4, 4)
    assert len(planted.opened(nn.Sequential(linear(), nn.ReLU(), linear()))) == 4
    for layers in ([linear(), nn.GELU(), linear()], [linear(), nn.ReLU(), nn.Dropout(), linear()]):
        with pytest.raises(ValueError, match=r"nn.Linear and nn.ReLU in turn only"):
            planted.opened(nn.Sequential(*layers))


def test_deep_shap_leaves_no_parameters():
    """shap's notes on modules inside a net inside another are parameters of these."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
    before = list(net.state_dict())
    explain.EXPLAINERS["deep shap"](net, X, 0, background=BACKGROUND)
    assert list(net.state_dict()) == before
    assert len(list(net.parameters())) == 4


def test_a_constant_hides_no_missing_sums():
    """A value of 1000 plus little: sums are compared with changes of the output, not with its size."""
    torch.manual_seed(0)
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 16), relu, nn.Linear(16, 16), relu, nn.Linear(16, 1)).double()
    apart = nn.Sequential(net[0], nn.ReLU(), net[2], nn.ReLU(), net[4])
    with torch.no_grad():
        net[4].bias += 1000
    explainer = explain.EXPLAINERS["deep shap"]
    assert explainer(explain.stated(apart, "value"), X, 0, background=BACKGROUND).shape == X.shape
    with pytest.raises(ValueError, match="the sums of deep shap miss"):
        explainer(explain.stated(net, "value"), X, 0, background=BACKGROUND)
