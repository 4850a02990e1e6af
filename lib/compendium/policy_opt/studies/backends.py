"""Notebook 03_policy_opt/05_backends: parity with TRL, and runs that share a process."""

from pathlib import Path

import torch

from compendium.policy_opt import config, runs


def parity(settings: config.Config, out) -> dict:
    """One GRPO run with divergence k3 by our trainer and by TRL's own with its KL: the distance between their
    weights, and how far training moved them, both Euclidean over all weights. For `launching.alone`."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    from compendium.policy_opt import trainer

    ours = trainer.build(settings, out)
    ours.train()
    args = ours.args
    args.use_bias_correction_kl = False  # multiplies the KL by the ratio, which no paper here does
    theirs = GRPOTrainer(
        trainer.load(settings)[0],
        ours.reward_funcs,
        args,
        train_dataset=ours.train_dataset,
        processing_class=ours.processing_class,
    )
    theirs.remove_callback(PrinterCallback)
    theirs.train()
    begun = trainer.load(settings)[0]
    weights = lambda model: torch.cat([weight.detach().flatten() for weight in model.parameters()])
    distance = lambda one, other: float((weights(one) - weights(other)).norm())
    return dict(difference=distance(ours.model, theirs.model), moved=distance(ours.model, begun))


def meddler(completion_ids, **_) -> list[float]:
    """A reward that spoils torch as it is called: a stand-in for libraries that patch others on import. It rewards
    something that all policies differ in."""
    torch.Tensor.exp = lambda self: torch.special.exp2(self)
    return [float(sum(ids) % 7) for ids in completion_ids]


def one_process(both: tuple[config.Config, config.Config], out) -> dict:
    """Two runs after each other in this process; the record of the second. For `launching.alone`."""
    runs.run(both[0], Path(out) / "first")
    return runs.run(both[1], Path(out) / "second")
