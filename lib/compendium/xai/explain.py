"""Explainers of single predictions behind one signature: a signed number for every feature of every row.

    A = EXPLAINERS["kernel shap"](model, X, target, background=x_train, seed=0)      # (n, d), in feature order

Everybody explains the same quantity: the probability of `target`, one fixed class per row, or with `output="logit"` its
raw score (the output of a torch net; +-decision_function where probabilities are its sigmoid or softmax; log-odds for
all other models; a regressor's prediction in either case). What the outputs of nets and functions mean is settled in
`outputs`, or said by `stated(model, kind)` in the model's place. Frames are compared by their columns' names; targets
are class numbers, or labels as text where the model has labels. Where a method cannot, `able` is False and calling it is an
error: it is never quietly another quantity, another class or another order.

| name | idea | compares with | sums to |
|---|---|---|---|
| shap | tree shap where that is exact, else kernel shap | rows of the background | f(x) - mean f(background) |
| kernel shap | Shapley values by weighted regression over coalitions (Lundberg & Lee 2017) | same | same |
| tree shap | Shapley values along the trees (Lundberg et al. 2020), interventional | same | same |
| deep shap | DeepLift averaged over the background (Lundberg & Lee 2017) | same | same |
| lime | slopes of a linear model fitted nearby (Ribeiro et al. 2016), times x - mean | mean | about that |
| integrated gradients | gradient averaged on the way from the baseline, times x - baseline (Sundararajan et al. 2017) | baseline | f(x) - f(baseline) |
| deeplift | differences of activations passed back by the rescale rule (Shrikumar et al. 2017) | baseline | same |
| occlusion | drop when one feature goes to the baseline | baseline | |
| gradient, smoothgrad | slope, slope averaged under noise (Smilkov et al. 2017) | nothing | |
| input x gradient | slope times x | 0 | |
| relevance, contrastive relevance | share of the absolute contributions (`relevance`); of the raw score always | 0 | |
| random | normal noise: the control | | |

`baseline` is the mean of the background unless given. Gradient methods take torch nets and scikit-learn's linear models
(also behind a StandardScaler). captum, shap and lime do the work, with these corrections, each of which a test covers:

- *Signed, complete, in order.* LIME is asked for all features and for the target's class, and put back in order.
- *Rows are independent.* Samplers restart from `seed` in every row, so that a row's explanation does not depend on its
  neighbours, and two inputs are compared under the same noise.
- *Probabilities of boosted trees.* shap's are stretched values of the raw score; `shap` uses kernel shap there.
- *Trees.* shap compares with thresholds in single precision: values that land on the wrong side made its sums wrong by
  up to 2.2 of 346 in our tests. Values and thresholds are replaced by their ranks (`trees`).
- *Sums.* What promises to add up is checked in every call: `additivity` says by how much it may miss, and refuses nets
  whose activations are functions or modules used twice, which DeepLift and deep SHAP do not see.
- *DeepLift of probabilities.* captum's softmax rule does not add up. Here logits are explained, and these attributions
  pass the softmax along the straight line from the baseline's logits, which is the rescale rule for two classes.
"""  # noqa: E501

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps

import numpy as np

from compendium.xai import additivity, tables, trees
from compendium.xai.additivity import STEPS, SUMS
from compendium.xai.outputs import evaluating, is_net, resolved, sharper, stated, to_tensor
from compendium.xai.predictions import OUTPUTS, ROWS_AT_ONCE, is_regressor, net_output, predictor
from compendium.xai.tables import table, targets

MOST_BACKGROUND = 50  # rows that kernel, tree and deep shap average over

__all__ = [
    "EXPLAINERS", "OUTPUTS", "ROWS_AT_ONCE", "able", "check", "predicted", "predictor", "resolved", "stated", "table",
    "targets",
]  # fmt: skip


# Nets behind models -------------------------------------------------------------------------------------------------


def _linear(model):
    """`(weight (K, d), bias (K,), factor)` of a linear scikit-learn model, or None.

    Raw scores are X weight' + bias; probabilities the softmax of `factor` times these (1/2 for two classes, whose
    scores are -s and s), or the scores themselves for a regressor (None).
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    *before, last = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    if not isinstance(last, (LogisticRegression, LinearRegression, Ridge)):
        return None
    weight = np.atleast_2d(last.coef_).astype(float)
    bias = np.broadcast_to(np.asarray(last.intercept_, float), (len(weight),)).copy()
    factor = None if is_regressor(last) else 1.0
    if factor and len(weight) == 1:
        weight, bias, factor = np.concatenate([-weight, weight]), np.concatenate([-bias, bias]), 0.5
    for step in reversed(before):
        if not isinstance(step, StandardScaler):
            return None
        scale = np.ones(weight.shape[1]) if step.scale_ is None else step.scale_
        weight = weight / scale
        if step.mean_ is not None:
            bias = bias - weight @ step.mean_
    return weight, bias, factor


def _net(model):
    """`(net giving raw scores, factor before the softmax or None)`; None if the model has no gradient."""
    from compendium.xai import nets

    if is_net(model):
        return model, sharper(model)
    if (found := _linear(model)) is None:
        return None
    weight, bias, factor = found
    return nets.linear(weight, bias), factor


def _differentiable(model, output: str):
    """`(net, function of tensors (n, d) -> (n, K) that is explained)`."""
    net, factor = _net(model)
    if output == "logit" or factor is None:
        return net, net

    def probability(x):
        z = net(x)
        return (factor * z).softmax(-1) if z.shape[1] > 1 else z

    return net, probability


# Checks ----------------------------------------------------------------------------------------------------------


def check(model, X, target) -> tuple[np.ndarray, np.ndarray]:
    """`(X (n, d) float64, target (n,))`, after checking both against the model. Raises ValueError."""
    tables.agreed(model, X)
    target, X = tables.numbered(target, model, X), table(X)
    K = predictor(resolved(model, X))(X[:1]).shape[1]
    return X, targets(target, len(X), K)


def predicted(model, X) -> np.ndarray:
    """(n,) the number of the class that the model predicts, the usual target; 0 for regressors."""
    tables.agreed(model, X)
    return predictor(model)(table(X)).argmax(1)


def _explainer(function: Callable) -> Callable:
    """An explainer that takes frames, labels as targets and models as users have them.

    Columns of all frames are compared by name, target labels become class numbers, and what the model's outputs mean is
    settled once; the function then sees arrays and a model in standard form. torch's generator is afterwards as it was.
    """
    import torch

    @wraps(function)
    def explain(model, X, target, *, background=None, baseline=None, **options):
        tables.agreed(model, X, background, baseline)
        target = tables.numbered(target, model, X)
        if baseline is not None:
            baseline = tables.beside(baseline, X, "the baseline")
        X = table(X)
        if background is not None:
            background = table(background, "background")
        model = resolved(model, X, background)
        with torch.random.fork_rng(devices=[]):
            return function(model, X, target, background=background, baseline=baseline, **options)

    return explain


def _background(background, X, most: int | None = None, seed: int = 0) -> np.ndarray:
    """Rows to compare with: those given, else X itself; at most `most` of them, drawn without replacement."""
    if background is None:
        if len(X) < 2:
            raise ValueError("one row cannot be its own background: pass background=, such as the training rows")
        background = X
    rows = table(background, "background")
    if rows.shape[1] != X.shape[1]:
        raise ValueError(f"the background has {rows.shape[1]} features and X {X.shape[1]}")
    if most is not None and len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]
    return rows


def _baseline(baseline, background, X) -> np.ndarray:
    """(n, d): what was given, (d,) or (n, d), else the mean of the background."""
    if baseline is None:
        baseline = _background(background, X).mean(0)
    baseline = np.asarray(baseline, float)
    if baseline.shape not in {X.shape, X.shape[1:]} or not np.isfinite(baseline).all():
        raise ValueError(f"the baseline must be (d,) or as X {X.shape}, without missing values; got {baseline.shape}")
    return np.broadcast_to(baseline, X.shape)


def _rows(baseline, background, X, most: int, seed: int) -> np.ndarray:
    """(m, d): the background, or the one baseline (d,) that was given for all rows."""
    if baseline is None:
        return _background(background, X, most, seed)
    baseline = _baseline(baseline, None, X)
    if (baseline != baseline[0]).any():
        raise ValueError("Shapley values take one baseline (d,) for all rows, or a background")
    return baseline[:1]


def _need(name: str, model, output: str) -> None:
    if not _able(name, model, output):
        raise ValueError(
            f"{name} cannot explain the {output} of {type(model).__name__}; kernel shap can explain any model"
        )


@contextmanager
def _seeded(seed: int):
    """numpy's and torch's global generators start from `seed`, and go back to where they were."""
    import torch

    state = np.random.get_state()  # noqa: NPY002 - shap draws from it
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _chosen(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n, d, K) -> (n, d) of each row's target; (n, d) stays."""
    return values if values.ndim == 2 else values[np.arange(len(values)), :, target]


# Shapley values --------------------------------------------------------------------------------------------------


@_explainer
def kernel_shap(model, X, target, *, background=None, seed=0, output="probability", baseline=None,
                samples: int | str = "auto", most: int = MOST_BACKGROUND) -> np.ndarray:  # fmt: skip
    """Shapley values of any model; exact up to 11 features, as all coalitions fit in the default 2 d + 2048 samples.

    A baseline, if given as (d,), is the whole background. Costs samples x background rows of predictions a row.
    """
    import shap

    X, target = check(model, X, target)
    rows = _rows(baseline, background, X, most, seed)
    explainer = shap.KernelExplainer(predictor(model, output), rows)
    found = []
    for x in X:
        with _seeded(seed):
            found.append(explainer.shap_values(x[None], nsamples=samples, l1_reg=False, silent=True)[0])
    return _chosen(np.stack(found), target)


@_explainer
def tree_shap(model, X, target, *, background=None, seed=0, output="probability", baseline=None,
              most: int = MOST_BACKGROUND) -> np.ndarray:  # fmt: skip
    """Shapley values of tree ensembles for the background (interventional, never path-dependent); see `trees`.

    Exact for forests, regressors and raw scores. For probabilities of boosted trees shap takes the values of the raw
    score and stretches them, for each background row, to sum to the difference in probability: complete, but not the
    Shapley values of the probability (off by up to 0.02 in our test). Raises ValueError where sums do not come out at
    the predictions.
    """
    X, target = check(model, X, target)
    _need("tree shap", model, output)
    rows = _rows(baseline, background, X, most, seed)
    stretched = output == "probability" and trees.is_boosted(model) and not is_regressor(model)
    found = trees.shapley(model, X, rows, probability=stretched)
    if found.ndim == 2 and not is_regressor(model):  # of class 1
        found = np.stack([-found, found], -1)
    found = _chosen(found, target)
    predict = predictor(model, output)
    at, to = predict(X)[np.arange(len(X)), target], predict(rows).mean(0)[target]
    additivity.check("tree shap", found, at, to, 1e-5, "use kernel shap")
    return found


@_explainer
def deep_shap(model, X, target, *, background=None, seed=0, output="probability", baseline=None,
              most: int = MOST_BACKGROUND) -> np.ndarray:  # fmt: skip
    """DeepLift averaged over background rows, by shap. Torch nets only."""
    import shap
    from torch import nn

    X, target = check(model, X, target)
    _need("deep shap", model, output)
    _precise("deep shap", model)
    rows = _rows(baseline, background, X, most, seed)
    with evaluating(model), _no_hooks_left(model):
        p = net_output(model, X, output)
        net = model
        if output == "probability" and p.shape[-1] > 1:
            scaled = [] if sharper(model) == 1 else [_times(sharper(model), p.shape[-1], model)]
            net = nn.Sequential(model, *scaled, nn.Softmax(-1)).eval()
        explainer = shap.DeepExplainer(net, to_tensor(rows, model))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unrecognized nn.Module")  # the sums are checked below
            found = additivity.hooked(explainer.shap_values, to_tensor(X, model), check_additivity=False)
        found = np.asarray(found, float)
    found = _chosen(found if found.ndim > 2 or p.shape[-1] > 1 else found[..., None], target)
    at, to = p[np.arange(len(X)), target], net_output(model, rows, output).mean(0)[target]
    additivity.check("deep shap", found, at, to, SUMS, additivity.MODULES)
    return found


def _times(factor: float, K: int, net):
    """The layer z -> factor z, for shap, which has rules for layers only."""
    import torch
    from torch import nn

    like = next(net.parameters(), torch.zeros(()))
    layer = nn.utils.skip_init(nn.Linear, K, K, bias=False, dtype=like.dtype, device=like.device)  # draws nothing
    with torch.no_grad():
        layer.weight.copy_(factor * torch.eye(K))
    return layer.requires_grad_(False)


@contextmanager
def _no_hooks_left(net):
    """Hooks, notes and parameters that shap has put on modules are gone afterwards, also where it fails half way."""
    own = lambda m: (m._forward_hooks, m._backward_hooks, m._parameters, vars(m))
    before = [(module, [set(kept) for kept in own(module)]) for module in net.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            for found, names in zip(own(module), kept, strict=True):
                for name in set(found) - names:
                    del found[name]


def _precise(name: str, net) -> None:
    import torch

    dtype = next(net.parameters(), torch.zeros(())).dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"{name} needs finer numbers than the net's {dtype}: pass net.float(), or use kernel shap")


@_explainer
def shap_values(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """Tree shap where it is exact (see there), else kernel shap."""
    exact = able("tree shap", model, output) and (output == "logit" or trees.is_forest(model) or is_regressor(model))
    function = tree_shap if exact else kernel_shap
    return function(model, X, target, background=background, seed=seed, output=output, baseline=baseline, **options)


# LIME ------------------------------------------------------------------------------------------------------------


@_explainer
def lime(model, X, target, *, background=None, seed=0, output="probability", baseline=None, samples: int = 1000,
         discretize: bool = False) -> np.ndarray:  # fmt: skip
    """Slopes of a ridge regression fitted near x, times x - baseline (the mean): contributions, like the others'.

    discretize: the package's default instead: features become "in the same quarter of the background as x", and the
    number is that indicator's coefficient, an effect against being in any other quarter.
    """
    from lime.lime_tabular import LimeTabularExplainer

    X, target = check(model, X, target)
    rows, d = _background(background, X), X.shape[1]
    away = X - _baseline(baseline, background, X)
    predict = predictor(model, output)
    explainer = LimeTabularExplainer(
        rows, mode="regression", discretize_continuous=discretize, feature_selection="none", random_state=seed
    )
    found = np.empty(X.shape)
    for i, (x, t) in enumerate(zip(X, target, strict=True)):
        explainer.random_state.seed(seed)
        function = lambda z, t=t: predict(z)[:, t]
        explained = explainer.explain_instance(x, function, num_features=d, num_samples=samples)
        order, weights = zip(*explained.local_exp[1], strict=True)  # largest first, under label 1 in this mode
        found[i, list(order)] = weights
    # Without bins, lime fits on columns divided by their standard deviation.
    return found if discretize else found / explainer.scaler.scale_ * away


# Gradients -------------------------------------------------------------------------------------------------------


def _by_captum(name: str, model, X, target, output: str, attribute: Callable) -> np.ndarray:
    """attribute(net, function, X tensor, target tensor, tensor of any array) -> attributions, all in batch."""
    import torch

    X, target = check(model, X, target)
    _need(name, model, output)
    net, function = _differentiable(model, output)
    _precise(name, net)
    tensor = lambda a: to_tensor(a, net)
    with evaluating(net):
        found = attribute(
            net, function, tensor(X).requires_grad_(), torch.from_numpy(target).to(tensor(0).device), tensor
        )
    return found.detach().double().cpu().numpy()


def _adds_up(name, found, model, X, target, start, output, tolerance, remedy) -> None:
    """Raise ValueError unless contributions sum to f(x) - f(baseline)."""
    if tolerance == np.inf:
        return
    X, target = check(model, X, target)
    predict, rows = predictor(model, output), np.arange(len(X))
    additivity.check(name, found, predict(X)[rows, target], predict(start)[rows, target], tolerance, remedy)


@_explainer
def gradient(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """The slope in every feature: per unit of the feature, unlike contributions."""
    from captum.attr import Saliency

    work = lambda net, f, x, t, tensor: Saliency(f).attribute(x, target=t, abs=False)
    return _by_captum("gradient", model, X, target, output, work)


@_explainer
def input_x_gradient(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """Slope times value, so relative to 0 whatever 0 means in the column."""
    from captum.attr import InputXGradient

    work = lambda net, f, x, t, tensor: InputXGradient(f).attribute(x, target=t)
    return _by_captum("input x gradient", model, X, target, output, work)


@_explainer
def integrated_gradients(model, X, target, *, background=None, seed=0, output="probability", baseline=None,
                         steps: int = 64, tolerance: float = STEPS) -> np.ndarray:  # fmt: skip
    """Gradients averaged over `steps` points between baseline and x (Gauss-Legendre), times x - baseline.

    Raises ValueError where sums miss the change in the output by more than `tolerance` times the largest output; inf
    does not ask, for models with steps, which have no gradient there.
    """
    from captum.attr import IntegratedGradients

    start = _baseline(baseline, background, table(X))

    def work(net, f, x, t, tensor):
        explainer = IntegratedGradients(f)
        return explainer.attribute(
            x, baselines=tensor(start), target=t, n_steps=steps, internal_batch_size=max(ROWS_AT_ONCE, len(x))
        )

    found = _by_captum("integrated gradients", model, X, target, output, work)
    remedy = f"more than steps={steps} are needed, or the net has jumps, which gradients do not see (tolerance=)"
    _adds_up("integrated gradients", found, model, X, target, start, output, tolerance, remedy)
    return found


@_explainer
def smoothgrad(model, X, target, *, background=None, seed=0, output="probability", baseline=None, samples: int = 32,
               noise: float = 0.15) -> np.ndarray:  # fmt: skip
    """The slope averaged over inputs with normal noise of `noise` standard deviations of each feature."""
    from captum.attr import NoiseTunnel, Saliency

    X = table(X)
    scale = _background(background, X).std(0)
    scale[scale == 0] = 1.0

    def work(net, f, x, t, tensor):
        sd = tensor(scale)
        tunnel = NoiseTunnel(Saliency(lambda u: f(u * sd)))  # captum's noise has one size: give it features of sd 1
        slopes = tunnel.attribute(
            (x / sd).detach().requires_grad_(), nt_type="smoothgrad", nt_samples=samples, stdevs=noise, target=t,
            abs=False, nt_samples_batch_size=max(1, ROWS_AT_ONCE // len(x)),
        )  # fmt: skip
        return slopes / sd

    with _seeded(seed):
        return _by_captum("smoothgrad", model, X, target, output, work)


@_explainer
def deeplift(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """DeepLift, rescale rule: of logits by captum, and from there through the softmax along the straight line."""
    import torch
    from captum.attr import DeepLift

    start = _baseline(baseline, background, table(X))
    through, allowed = _net(model), []

    def work(net, f, x, t, tensor):
        b = tensor(start)
        explainer = DeepLift(net)
        allowed.append(additivity.deeplift_tolerance(net, x))
        warnings.filterwarnings("ignore", "Setting forward, backward hooks")
        if output == "logit" or net(x[:1]).shape[1] == 1:
            return additivity.hooked(explainer.attribute, x, baselines=b, target=t)
        logits = torch.stack([explainer.attribute(x, baselines=b, target=k) for k in range(net(x[:1]).shape[1])], -1)
        sharper = through[1]
        with torch.no_grad():
            at, to = sharper * net(b), sharper * net(x)  # (n, K)
            places, weights = np.polynomial.legendre.leggauss(64)
            mean = torch.zeros_like(at)  # d probability of t / d logits, averaged on the line
            for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
                p = (at + place * (to - at)).softmax(-1)
                chosen = p.gather(1, t[:, None])
                mean += weight * chosen * (torch.nn.functional.one_hot(t, p.shape[1]) - p)
        return (logits * (sharper * mean)[:, None]).sum(-1)

    with warnings.catch_warnings():
        found = _by_captum("deeplift", model, X, target, output, work)
    _adds_up("deeplift", found, model, X, target, start, output, allowed[0], additivity.MODULES)
    return found


# Others ----------------------------------------------------------------------------------------------------------


@_explainer
def occlusion(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """The drop when one feature alone is set to its baseline; captum's feature ablation, all features in one batch."""
    import torch
    from captum.attr import FeatureAblation

    X, target = check(model, X, target)
    start = _baseline(baseline, background, X)
    predict = predictor(model, output)
    explainer = FeatureAblation(lambda x: torch.from_numpy(predict(x.numpy())))
    found = explainer.attribute(
        torch.from_numpy(X), baselines=torch.from_numpy(start.copy()), target=torch.from_numpy(target),
        perturbations_per_eval=max(1, min(X.shape[1], ROWS_AT_ONCE // len(X))),
    )  # fmt: skip
    return found.numpy()


@_explainer
def relevance(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """`compendium.xai.relevance.relevance`: at least 0, of the raw score whatever `output` is."""
    from compendium.xai import relevance as rules

    X, target = check(model, X, target)
    _need("relevance", model, output)
    return np.asarray(rules.relevance(model, X, target, **options), float)


@_explainer
def contrastive_relevance(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """`compendium.xai.relevance.contrastive`: signed, of the raw scores whatever `output` is."""
    from compendium.xai import relevance as rules

    X, target = check(model, X, target)
    _need("contrastive relevance", model, output)
    return np.asarray(rules.contrastive(model, X, target, **options), float)


@_explainer
def random(model, X, target, *, background=None, seed=0, output="probability", baseline=None) -> np.ndarray:
    """Normal noise: what any explanation must beat."""
    X, _ = check(model, X, target)
    return np.random.default_rng(seed).normal(size=X.shape)


EXPLAINERS: dict[str, Callable[..., np.ndarray]] = {
    "shap": shap_values,
    "kernel shap": kernel_shap,
    "tree shap": tree_shap,
    "deep shap": deep_shap,
    "lime": lime,
    "integrated gradients": integrated_gradients,
    "input x gradient": input_x_gradient,
    "gradient": gradient,
    "smoothgrad": smoothgrad,
    "deeplift": deeplift,
    "occlusion": occlusion,
    "relevance": relevance,
    "contrastive relevance": contrastive_relevance,
    "random": random,
}
_GRADIENT = ("integrated gradients", "input x gradient", "gradient", "smoothgrad", "deeplift")
_NET = ("deep shap", "relevance", "contrastive relevance")


def able(name: str, model, output: str = "probability") -> bool:
    """Whether an explainer can explain this output of this model."""
    import torch

    with torch.random.fork_rng(devices=[]):  # making the net of a linear model draws
        return _able(name, model, output)


def _able(name: str, model, output: str) -> bool:
    if name not in EXPLAINERS:
        raise ValueError(f"unknown explainer {name!r}: choose one of {', '.join(EXPLAINERS)}")
    if name in _NET:
        return is_net(model)
    if name in _GRADIENT:
        return _net(model) is not None
    return trees.able(model, output) if name == "tree shap" else True
