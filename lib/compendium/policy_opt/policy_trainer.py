"""TRL trains; this adds what it lacks, each as a few lines around its own methods.

`PolicyTrainer` is TRL's `GRPOTrainer` with

- any divergence in the place of its KL term: per token, inside the aggregation of the chosen loss, with TRL's `beta` as
  the coefficient. Aggregations are linear, so TRL's loss without KL plus the aggregated divergence is the loss of
  `losses.policy_loss`, and everything else TRL does (adapters, vLLM's corrections, tools, entropy terms) stays;
- token weights from counterfactuals, as advantages of shape (rows, tokens), which TRL takes. With token ratios that is
  exact, as w min(rA, clip(r)A) = min(r wA, clip(r) wA) for w >= 0; with sequence ratios weights of mean 1 would have no
  effect, so it is refused;
- DAPO's dynamic sampling: prompts whose completions all have the same reward are replaced by others before training;
- advantages of exactly 0 where rewards are equal (rounding leaves traces, which AdamW, blind to scale, would follow),
  and a refusal of infinite rewards.

Written for trl 1.16, whose private methods it overrides; `tests/policy_opt/test_trainer.py` compares one step with
`losses`.
"""

import numpy as np
import torch
from torch import Tensor
from trl import GRPOTrainer

from compendium.policy_opt import credit as credits
from compendium.policy_opt import losses


class PolicyTrainer(GRPOTrainer):
    """`GRPOTrainer` with a divergence, token weights and dynamic sampling; other arguments are its own.

    divergence: (logp, ref_logp) -> per token, weighted by `args.beta`; None keeps TRL's KL. credit: one of
    `credit.MODES`. rounds: of dynamic sampling at most, 0 for none.
    Raises ValueError for credit with sequence ratios, or dynamic sampling with tools or on several processes.
    """

    def __init__(self, *arguments, divergence=None, credit: str = "vanilla", rounds: int = 0, **options):
        self.divergence, self.credit, self.rounds = divergence, credit, rounds
        self._logp = self._drawn = self._totals = None
        super().__init__(*arguments, **options)
        if credit != "vanilla" and self.importance_sampling_level != "token":
            raise ValueError("token weights of mean 1 have no effect with sequence ratios: use token ratios")
        if rounds and (self.tools or self.rollout_func or self.accelerator.num_processes > 1):
            raise ValueError("dynamic sampling works on one process, without tools or a rollout function")

    # Divergence ------------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, *arguments, **options):
        found = super()._get_per_token_logps_and_entropies(*arguments, **options)
        self._logp = found[0]
        return found

    def _compute_loss(self, model, inputs):
        if self.divergence is None:
            return super()._compute_loss(model, inputs)
        coefficient, self.beta = self.beta, 0.0  # TRL's own KL is left out
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = coefficient
        if not coefficient:
            return loss
        if torch.is_grad_enabled() and not self._logp.requires_grad:
            raise RuntimeError("this backend gives log-probabilities without gradient: a divergence could not act")
        mask = inputs["completion_mask"].bool()
        if "tool_mask" in inputs:
            mask = mask & inputs["tool_mask"].bool()
        logp, ref = (x.masked_fill(~mask, 0.0) for x in (self._logp, inputs["ref_per_token_logps"]))
        drift = self.divergence(logp, ref).masked_fill(~mask, 0.0)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["divergence"].append((drift.sum() / mask.sum().clamp(min=1)).item())
        return loss + coefficient * self._mean(drift, mask, inputs["num_items_in_batch"])

    def _mean(self, drift: Tensor, mask: Tensor, items: Tensor) -> Tensor:
        """The mean that TRL's loss type takes over tokens, with its share of an accumulated step."""
        parts = self.current_gradient_accumulation_steps if self.model.training else 1
        if self.loss_type == "grpo":
            return losses.sequence_mean(drift, mask) / parts
        if self.loss_type == "dr_grpo":
            return losses.fixed_mean(drift, mask, self.max_completion_length) / parts
        if self.loss_type == "dapo":
            total = items.clamp(min=1) / self.accelerator.num_processes
            if self.model.training:  # `items` counts all that was generated at once
                total = total * parts / self.args.steps_per_generation
            return losses.token_mean(drift, mask, total)
        raise ValueError(f"no divergence for loss type {self.loss_type!r}: use grpo, dr_grpo or dapo")

    # Completions and their advantages --------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        # Its order depends on how many epochs it has seen, and a resumed run has seen none: let the epoch decide.
        sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(self.args.seed + (epoch << 32))
        return sampler

    def _generate_and_score_completions(self, inputs):
        if self.rounds and self.model.training:
            inputs = self._draw(inputs)
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self._drawn = None
        group = self.num_generations if self.model.training else self.num_generations_eval
        varied = losses.varied(self._totals.view(-1, group)).repeat_interleave(group)
        mine = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        output["advantages"] = output["advantages"] * varied[mine]
        if self.credit != "vanilla" and self.model.training:
            output["advantages"] = output["advantages"][:, None] * self._weights(output)
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._drawn is not None:
            table = self._drawn["rewards"]
        else:
            table = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if table.isinf().any():
            row, column = table.isinf().nonzero()[0].tolist()
            raise ValueError(f"reward {self.reward_func_names[column]!r} is infinite for completion {row}")
        self._totals = (table * self.reward_weights.to(table)).nansum(1).masked_fill(table.isnan().all(1), torch.nan)
        return table

    def _generate(self, prompts):
        if self._drawn is None:
            return super()._generate(prompts)
        made = self._drawn
        return made["prompt_ids"], made["completion_ids"], None, made["completions"], made["logprobs"], {}, None, []

    def _draw(self, inputs: list[dict]) -> list[dict]:
        """Inputs whose groups' rewards differ, as far as `rounds` go; completions and rewards wait in `_drawn`."""
        size, wanted = self.num_generations, len(inputs) // self.num_generations
        rng = np.random.default_rng([self.args.seed, self.state.global_step])
        flat, given, dataset = [], [inputs], self.train_dataset

        def draw(n: int) -> list[tuple]:
            others = (dataset[int(i)] for i in rng.integers(len(dataset), size=n))
            rows = given.pop() if given else [item for item in others for _ in range(size)]
            prompts = [row["prompt"] for row in rows]
            prompt_ids, completion_ids, _, completions, logprobs, *_ = self._generate(prompts)
            table = self._calculate_rewards(rows, prompts, completions, completion_ids)
            groups = []
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                made = dict(
                    inputs=rows[part],
                    prompt_ids=prompt_ids[part],
                    completion_ids=completion_ids[part],
                    completions=completions[part],
                    logprobs=logprobs and logprobs[part],
                    rewards=table[part],
                )
                groups.append((self._totals[part], made))
            flat.extend(group for group in groups if not losses.varied(group[0]))
            return groups

        kept, drawn = losses.dynamic_sampling(draw, wanted, rounds=self.rounds)
        kept += flat[: wanted - len(kept)]  # they teach nothing, but the batch must be full
        self._metrics["train"]["drawn"].append(drawn / wanted)
        join = lambda name: [row for _, made in kept for row in made[name]]
        self._drawn = {name: join(name) for name in ("prompt_ids", "completion_ids", "completions")}
        self._drawn["logprobs"] = join("logprobs") if kept[0][1]["logprobs"] is not None else None
        self._drawn["rewards"] = torch.cat([made["rewards"] for _, made in kept])
        return join("inputs")

    def _weights(self, output: dict) -> Tensor:
        """(rows, tokens) weights of completions; 1 for those whose advantage is 0, which they cannot change."""
        matter = output["advantages"].nonzero()[:, 0]
        weights = torch.ones_like(output["completion_ids"], dtype=output["advantages"].dtype)
        if not len(matter):
            return weights
        unpadded = {
            name: [
                ids[mask.bool()].tolist()
                for ids, mask in zip(output[f"{name}_ids"][matter], output[f"{name}_mask"][matter], strict=True)
            ]
            for name in ("prompt", "completion")
        }
        model = self.accelerator.unwrap_model(self.model)
        rng = np.random.default_rng([self.args.seed, self.state.global_step])
        found = credits.credit(
            model, self._tokenizer, unpadded["prompt"], unpadded["completion"], mode=self.credit, rng=rng
        )
        weights[matter, : found.weights.shape[1]] = found.weights.to(weights)
        self._note(found)
        return weights

    def _note(self, found: credits.Credit) -> None:
        """Mean weight by kind of span, and the share of spans whose removal raises the answer's probability."""
        kinds = {"calculation": [], "sentence": []}
        for row, region in zip(found.weights.cpu(), found.regions, strict=True):
            for span in region.spans:
                kinds[span.kind].append(row[span.start : span.end].mean().item())
        for kind, values in kinds.items():
            if values:
                self._metrics["train"][f"weight/{kind}"].append(float(np.mean(values)))
        drops = np.concatenate([*found.drops, []])
        if len(drops):
            self._metrics["train"]["distractors"].append(float((drops < 0).mean()))
