"""A model opened at its units: activations, gradients and interventions."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Subject:
    """A model and the linear layers that read its units; unit numbers run through the layers in order."""

    model: nn.Module
    readers: tuple[nn.Linear, ...]
    embed: Callable[[Tensor], Tensor]  # inputs to what can be interpolated
    logits: Callable[[Tensor], Tensor]  # embedded inputs to (n, K)

    @property
    def sizes(self) -> list[int]:
        return [reader.in_features for reader in self.readers]

    def __len__(self) -> int:
        return sum(self.sizes)

    def split(self, units: Tensor) -> tuple[Tensor, ...]:
        """(units, ...) values as one part a reader."""
        return units.split(self.sizes)

    @contextmanager
    def intervened(self, change: Callable[[int, Tensor], Tensor]):
        """While inside, reader i reads change(i, a) instead of its input a (n, ..., width)."""
        hooks = [
            reader.register_forward_pre_hook(lambda _, args, i=i: (change(i, args[0]), *args[1:]))
            for i, reader in enumerate(self.readers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def activations(self, e: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`(logits, what each reader reads)` for embedded inputs; both carry gradients if `e` does."""
        seen = []

        def note(_, a):
            seen.append(a)
            return a

        with self.intervened(note):
            return self.logits(e), seen

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self.logits(self.embed(x))


def opened(model: nn.Module) -> Subject:
    """A Subject from an nn.Sequential of nn.Linear and nn.ReLU in turn, or a Llama of transformers."""
    if type(model).forward is nn.Sequential.forward:
        for k, layer in enumerate(model):  # the reader of an activation must be the linear layer behind it
            if not isinstance(layer, nn.ReLU if k % 2 else nn.Linear):
                raise ValueError(f"cannot open layer {k}, {type(layer).__name__}: nn.Linear and nn.ReLU in turn only")
        readers = [b for a, b in pairwise(model) if isinstance(a, nn.ReLU)]
        return Subject(model, tuple(readers), lambda x: x, model)
    if type(model).__name__ == "LlamaForCausalLM":
        readers = [r for block in model.model.layers for r in (block.self_attn.o_proj, block.mlp.down_proj)]
        logits = lambda e: model(inputs_embeds=e, logits_to_keep=1).logits[:, -1]
        return Subject(model, tuple(readers), model.get_input_embeddings(), logits)
    raise ValueError(f"cannot open a {type(model).__name__}: pass a ReLU nn.Sequential or a LlamaForCausalLM")


def margin(logits: Tensor, right: Tensor, planted: Tensor) -> Tensor:
    """Logit of the planted answer less that of the right one, (n,): what every score is about."""
    return (logits.gather(1, planted[:, None]) - logits.gather(1, right[:, None]))[:, 0]


def flat(a: Tensor) -> Tensor:
    """(n, ..., width) summed over positions: (n, width)."""
    return a.flatten(1, -2).sum(1) if a.ndim > 2 else a


def mean(a: Tensor) -> Tensor:
    """(n, ..., width) mean over rows and positions: (width,)."""
    return a.flatten(0, -2).mean(0)


@torch.no_grad()
def means(subject: Subject, x: Tensor) -> Tensor:
    """(units,) mean activation over inputs and positions."""
    return torch.cat([mean(a) for a in subject.activations(subject.embed(x))[1]])


def unit_gradients(subject, e, right, planted) -> tuple[list[Tensor], list[Tensor]]:
    """What each reader reads and the gradient of the summed margin there."""
    with torch.enable_grad():
        logits, seen = subject.activations(e.detach().requires_grad_(True))
        gradients = torch.autograd.grad(margin(logits, right, planted).sum(), seen)
    return [a.detach() for a in seen], list(gradients)


def product(changes, gradients) -> Tensor:
    """(units,) mean over rows of change times gradient, summed over positions."""
    return torch.cat([flat(c * g).mean(0) for c, g in zip(changes, gradients, strict=True)])
