"""What a model's outputs mean, so that probabilities are never passed through a softmax, nor a logit taken for a value.

    model = stated(net, "logits")          # say it; or leave it to `resolved`, which infers it only where it is certain
    predict = predictions.predictor(model) # (n, d) -> (n, K) probabilities, or (n, 1) values

| model | outputs | taken for |
|---|---|---|
| scikit-learn and the like | `predict_proba`, `predict` of a regressor | what they are |
| torch net, several columns | end in softmax, or are shares that sum to 1 in every row | probabilities |
| | end in a sigmoid | refused: each is a label of its own |
| | are shares that nearly sum to 1 in every row | asked |
| | all others | logits |
| torch net, one column | ends in a sigmoid | the probability of class 1 |
| | all others | asked, unless labels y tell (`resolved`) |
| function, several columns | all | probabilities; `report` asks where they are none |
| function, one column | of whole numbers, as labels are | asked, unless y holds two classes |
| | all within 0 to 1 | asked, unless labels y tell |
| | all others | values |

Kinds are "logits", "probabilities", "log-probabilities" and "value"; a single column of the first two is about class 1
("logit" and "probability" are the same words). A net that ends in softmax, log-softmax or sigmoid modules in an
`nn.Sequential` is explained without that module, whose inputs are its raw scores; other nets by their logarithms.
Dictionaries and outputs of Hugging Face models are read at `logits`.
"""

import numpy as np
import pandas as pd

from compendium.xai.calls import (
    Function,
    Stated,
    columns,
    evaluating,
    is_function,
    is_net,
    is_shares,
    scores,
    to_tensor,
)

_ASKED = 256  # rows that decide what outputs mean


_NEARLY = 0.1  # rows of numbers in 0 to 1 whose sums are nearer to 1 may be probabilities that were clipped or rounded


_SAY = "say so: kind='{}' to report, or explain.stated(model, '{}') to an explainer"


def _is_settled(model) -> bool:
    if not is_net(model):
        return isinstance(model, Function)
    from compendium.xai.layers import Settled

    return isinstance(model, Settled)


def resolved(model, X, background=None, *, y=None, strict: bool = False):
    """The model in standard form: a net of raw scores (n, K), or of values (n, 1); a `Function`; or what it was, if
    nothing is to be settled.

    X, background: arrays, rows that may be asked about. y: labels (n,), which tell classes from values for models of
    one output. strict: functions of several columns must give probabilities. Raises ValueError, saying what to pass,
    where outputs could mean several things.
    """
    kind = None
    if isinstance(model, Stated):
        model, kind = model.model, model.kind
    if _is_settled(model) or not (is_net(model) or is_function(model)):
        return model
    some = [rows[:_ASKED] for rows in (X, background) if rows is not None and np.shape(rows)[1:] == np.shape(X)[1:]]
    rows = np.concatenate(some)
    if is_net(model):
        z, last, plain = _ending(model, rows)
        kind = kind or _kind_of_net(model, z, last, y)
        p = np.exp(z) if kind == "log-probabilities" else z
        p = p if p.shape[1] > 1 else np.concatenate([1 - p, p], 1)
        if kind in ("probabilities", "log-probabilities") and not is_shares(p, 1e-2):
            raise ValueError(f"the net's {kind} must be within 0 and 1 and sum to 1 in every row")
        return _net_of(model, kind, z.shape[1], last, plain)
    if kind is None:
        z = columns(model(rows[:1]), 1)
        if z.shape[1] > 1 and not strict:
            return model
        given = model(rows)
        whole = str(getattr(given, "dtype", "")).removeprefix("torch.").startswith(("int", "uint", "bool"))
        kind = _kind_of_function(columns(given, len(rows)), y, whole)
        if kind is None:
            return model
    return Function(model, kind)


def _kind_of_function(z: np.ndarray, y, whole: bool) -> str | None:
    """whole: whether the function gives numbers of a whole type, as `predict` of a classifier does."""
    if whole and z.shape[1] == 1 and _labels(y) != "classes":
        raise ValueError(
            "the function gives one whole number a row, as labels are: return probabilities of classes, or, if it is a "
            f"value, {_SAY.format('value', 'value')}"
        )
    if z.shape[1] > 1:
        if is_shares(z, 1e-3):
            return None
        raise ValueError(
            f"the function gives {z.shape[1]} numbers a row that are no probabilities (within 0 and 1, sum 1): if they "
            f"are scores of classes, {_SAY.format('logits', 'logits')}"
        )
    if (z < 0).any() or (z > 1).any():
        if _labels(y) != "classes":
            return "value"
        raise ValueError(
            "the function gives one number a row, outside 0 to 1, and y holds two classes: if it is the logit of the "
            f"second, {_SAY.format('logit', 'logit')}, else return probabilities"
        )
    told = {"classes": "probabilities", "numbers": "value"}.get(_labels(y))
    if told is None:
        raise ValueError(
            "the function gives one number in 0 to 1 a row, a probability of class 1 or a value: "
            f"{_SAY.format('probability', 'probability')} (or 'value')"
        )
    return told


def _kind_of_net(net, z: np.ndarray, last: str, y) -> str:
    K = z.shape[1]
    if K > 1 and last == "Sigmoid":
        raise ValueError(
            f"the net's {K} outputs end in a sigmoid, so each is a label of its own: explain one at a time, by a "
            "function of X that returns its probability"
        )
    if K > 1 and last == "Softmax":
        if is_shares(z, 1e-2):
            return "probabilities"
        raise ValueError("the net's softmax does not run over the classes: its rows do not sum to 1")
    if K > 1 and last == "LogSoftmax":
        return "log-probabilities"
    if K > 1:
        uniform = (np.abs(z - 1 / K) < 1e-6).all()  # softmax gives the same
        nearly = z.min() >= -1e-5 and np.abs(z.sum(1) - 1).max() <= (_NEARLY if len(z) > 1 else 1e-2)
        if uniform or not nearly:
            return "logits"
        exact = is_shares(z, 1e-5)
        if exact and len(z) > 1 and np.ptp(z, axis=0).max() > 0:
            return "probabilities"
        how = "sum to 1 and are the same in all rows" if exact else "are shares that nearly sum to 1 in all rows"
        raise ValueError(
            f"the net's outputs {how}, so they may be logits or probabilities: "
            f"{_SAY.format('logits', 'logits')} (or 'probabilities')"
        )
    if last in ("Sigmoid", "Softmax"):
        return "probabilities"
    told = _labels(y)
    if told == "numbers":
        return "value"
    if told == "classes" and (z.min() < -1 or z.max() > 2):  # nothing that was fitted to 0 and 1
        return "logits"
    raise ValueError(
        f"{type(net).__name__} has one output, which may be a value, a logit or a probability of class 1: "
        f"{_SAY.format('value', 'value')} (or 'logit', 'probability')"
    )


def _labels(y) -> str | None:
    """What labels say about a model of one output: "classes" (two of them), "numbers" or nothing."""
    if y is None:
        return None
    values = pd.Series(np.asarray(y).ravel(), dtype=object).dropna()
    number = all(isinstance(v, (int, float, np.number)) and not isinstance(v, (bool, np.bool_)) for v in values)
    if values.nunique() <= 2 and (not number or set(values) <= {0, 1}):
        return "classes"
    return "numbers" if number and values.nunique() > 2 else None


_THROUGH = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "ToCopy",
    "Clone",
    "Alias",
    "Expand",
    "Transpose",
    "Permute",
    "T",
    "Select",
    "Slice",
)


_ENDS = ("Softmax", "LogSoftmax", "Sigmoid")


def _ending(net, rows) -> tuple[np.ndarray, str, bool]:
    """`(outputs (n, K) float64, the operation they end in, whether the net gives a tensor (n, K) itself)`.

    Operations are those of _ENDS, else "". Raises ValueError for outputs that cannot be used.
    """
    import torch

    try:
        with torch.enable_grad(), evaluating(net), torch.random.fork_rng(devices=[]):
            given = net(to_tensor(rows, net).requires_grad_())
            out = scores(given)
    except (RuntimeError, IndexError, TypeError) as wrong:
        what = (
            f"rows of {np.shape(rows)[1]} features" if np.ndim(rows) == 2 else f"inputs of shape {np.shape(rows)[1:]}"
        )
        raise ValueError(f"the model does not take {what}: {str(wrong).splitlines()[0]}") from wrong
    step = out.grad_fn
    name = ""
    while step is not None:
        name = step.name().rstrip("0123456789").removesuffix("Backward").lstrip("_")
        if name not in _THROUGH or not step.next_functions:
            break
        step = step.next_functions[0][0]
    z = columns(out.detach().double(), len(rows))
    return z, name if name in _ENDS else "", isinstance(given, torch.Tensor) and given.ndim == 2


def _stripped(net, module: type):
    """The layers of an nn.Sequential that ends in this module, flattening aside, without it; None for other nets."""
    from torch import nn

    if type(net).forward is not nn.Sequential.forward or net._forward_hooks or not len(net):
        return None
    *before, last = net
    if type(last) is module:
        return before
    if isinstance(last, (nn.Flatten, nn.Identity)):
        inner = _stripped(nn.Sequential(*before), module)
        return None if inner is None else [*inner, last]
    inner = _stripped(last, module) if isinstance(last, nn.Sequential) else None
    return None if inner is None else [*before, *inner]


def _net_of(net, kind: str, K: int, last: str, plain: bool):
    """The net of raw scores, or of values if that is the kind; the user's own where it is one already.

    K: columns of its output; last: the operation it ends in; plain: whether it gives a tensor (n, K) itself.
    """
    from torch import nn

    from compendium.xai import layers

    if kind == "value" and K > 1:
        raise ValueError(
            f"the net predicts {K} values a row: explain one at a time, by a function of X that returns it"
        )
    if kind == "log-probabilities" and K == 1:
        raise ValueError("a single column of log-probabilities says nothing of class 0: return both columns")
    found = None
    if last and kind in ("probabilities", "log-probabilities") and (last == "Sigmoid") == (K == 1):
        found = _stripped(net, getattr(nn, last))
    strip = found is not None
    if plain and K > 1 and not strip and kind != "probabilities":
        return net
    found = found if strip else [net]
    if not plain:
        found.append(layers.Read())
    if kind == "probabilities" and not strip:
        found.append(layers.LogOdds() if K == 1 else layers.Log())
    if K == 1 and kind != "value":
        found.append(layers.plus_minus(net))
    sharper = 0.5 if K == 1 and kind != "value" else 1.0
    return layers.Settled(*found, sharper=sharper, values=kind == "value", training=net.training)
