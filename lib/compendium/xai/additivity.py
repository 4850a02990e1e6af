"""Whether contributions add up, and whether a net's activations are where hooks can see them.

DeepLIFT, deep SHAP and guided backpropagation act through hooks on modules. An activation called as a function
(`F.relu`) or a module called twice escapes them: sums then miss the prediction, or guided backpropagation is the plain
gradient. Neither says so by itself.
"""

from collections import Counter

import numpy as np

from compendium.xai.calls import evaluating, scores

# Shares of the largest output by which sums may miss it (see `check`): of DeepLIFT, of DeepLIFT with max pooling, whose
# rule in captum adds up roughly (missed by up to 0.13 in our tests), of integrated gradients, whose steps are finite.
SUMS, POOLED, STEPS = 1e-3, 0.2, 0.05
MODULES = (
    "it needs every activation to be a module of its own, called once (nn.ReLU() twice; not F.relu, one module used "
    "twice, or a kind without a rule such as GELU): mend the net, or use integrated gradients"
)
# Operations that cut off or bend negative signals as ReLU does; hidden activations of nets without any ReLU.
_LIKE_RELU = set(
    "Gelu Silu LeakyRelu Elu Celu Hardtanh Hardswish Hardsigmoid Softplus Mish Clamp ClampMin Threshold RreluWithNoise "
    "PreluKernel Maximum Where LogSigmoid Glu".split()
)
_INSTEAD = {"Tanh", "Sigmoid", "Softmax"}
# Modules that captum's DeepLIFT has rules for, and the operation each leaves in the graph.
_RULES = {
    "ReLU": "Relu",
    "ELU": "Elu",
    "LeakyReLU": "LeakyRelu",
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Softmax": "Softmax",
    "Softplus": "Softplus",
    "MaxPool1d": "MaxPool2DWithIndices",
    "MaxPool2d": "MaxPool2DWithIndices",
    "MaxPool3d": "MaxPool3DWithIndices",
}


def check(name: str, A: np.ndarray, at: np.ndarray, to: np.ndarray, tolerance: float, remedy: str) -> None:
    """Raise ValueError unless contributions A (n, ...) sum to `at` - `to` (n,) in every row.

    at, to: outputs at the rows and where nothing is known. tolerance: share of the largest output that sums may miss;
    where that is SUMS, of the largest change, which may be far smaller than outputs with a constant in them are, but
    for what single precision loses.
    """
    gap = np.abs(A.reshape(len(A), -1).sum(1) - (at - to))
    worst = int(gap.argmax())
    largest = max(np.abs(at).max(), np.abs(to).max(), 1e-12)
    allowed = tolerance * largest
    if tolerance == SUMS:
        allowed = min(allowed, max(tolerance * np.abs(at - to).max(), 1e-5 * largest, 1e-6))
    if not gap[worst] <= allowed:
        raise ValueError(
            f"the sums of {name} miss the change in the output by {gap[worst]:.2g} where it is "
            f"{at[worst] - to[worst]:.2g}: {remedy}"
        )


def hooked(attribute, *args, **options):
    """attribute(*args, **options), where in-place activations, which hooks cannot act on, raise ValueError."""
    try:
        return attribute(*args, **options)
    except RuntimeError as wrong:
        if "inplace" not in str(wrong) and "in-place" not in str(wrong):
            raise
        raise ValueError(
            "activations must not work in place, as hooks act on them: use nn.ReLU(inplace=False)"
        ) from wrong


def operations(net, x) -> tuple[Counter, Counter]:
    """`(operations in the graph from x to the output, by name; calls of each module of _RULES)`."""
    import torch

    calls, hooks = Counter(), []
    for module in net.modules():
        if type(module).__name__ in _RULES:
            hooks.append(module.register_forward_hook(lambda module, *_: calls.update([module])))
    try:
        with torch.enable_grad(), evaluating(net), torch.random.fork_rng(devices=[]):
            out = scores(net(x.detach().clone().requires_grad_()))
    finally:
        for hook in hooks:
            hook.remove()
    found, seen, todo = Counter(), set(), [out.grad_fn]
    while todo:
        step = todo.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        found[step.name().rstrip("0123456789").removesuffix("Backward").lstrip("_")] += 1
        todo += [before for before, _ in step.next_functions]
    return found, calls


def _hidden(found: Counter, calls: Counter, kinds: set[str]) -> str | None:
    """Why hooks do not see every operation of these kinds, or None."""
    made = Counter()
    for module, count in calls.items():
        made[_RULES[type(module).__name__]] += count
        if count > 1 and _RULES[type(module).__name__] in kinds:
            return f"one nn.{type(module).__name__} module is called {count} times"
    away = sorted(kind for kind in kinds if found[kind] != made[kind])
    return f"{away[0]} is called as a function, not as a module" if away else None


def guidable(net, x) -> None:
    """Raise ValueError unless every activation of the net is an nn.ReLU module that is called once."""
    found, calls = operations(net, x[:1])
    bent = sorted((_LIKE_RELU | (set() if found["Relu"] else _INSTEAD)) & set(found))
    why = f"it is a rule for ReLU, and this net has {', '.join(bent)}" if bent else _hidden(found, calls, {"Relu"})
    if why:
        raise ValueError(
            f"guided backpropagation would be the plain gradient in places: {why}; give the net an nn.ReLU() for each "
            "activation, or use another explainer"
        )


def deeplift_tolerance(net, x) -> float:
    """Share of the largest output by which sums of DeepLIFT may miss it in this net. Raises ValueError if activations
    are out of its sight."""
    found, calls = operations(net, x[:1])
    rules = set(_RULES.values())
    bent = sorted((_LIKE_RELU - rules) & set(found))
    why = f"it has no rule for {', '.join(bent)}" if bent else _hidden(found, calls, rules)
    if why:
        raise ValueError(f"the sums of deeplift would miss the output, as {why}: {MODULES}")
    return POOLED if any(kind.startswith("MaxPool") for kind in found) else SUMS
