"""Looking inside an edited model: has the knowledge gone, or only the answer?

- `attribute` and `cad.divergence`: does the same circuit still carry the facts?
- `probe`: can a linear probe tell true answers from false ones in the hidden states?
- `relearn`: how fast do held-out forgotten facts come back when *other* forgotten facts are taught again?
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from compendium import edits, facts, tokens
from compendium.attribution import scores
from compendium.attribution.decoder import Decoder, Pairs
from compendium.attribution.nodes import Nodes
from compendium.unlearning import forget_set, objectives


def contrast(tokenizer, table: pd.DataFrame, *, seed: int = 0, template: int = 0) -> list[Pairs]:
    """Attribution pairs, one `Pairs` per relation and prompt length: every fact against another one.

    clean: the fact's prompt in train template number `template`; corrupt: the same with another subject of as many
    tokens; right and wrong: the first tokens of their answers, which must differ. Facts without a partner are left out.
    Raises ValueError when no two facts fit together.
    """
    table = facts.tidy(table)
    asked = facts.questions(split="train", table=table)
    first = {relation: facts.templates(relation, "train")[template] for relation in table.relation.unique()}
    asked = asked[asked.template == asked.relation.map(first)]
    rows = facts.encode(tokenizer, asked.prompt, [(answer,) for answer in asked.object])
    rng = np.random.default_rng(seed)
    alike = {}  # one relation, one prompt length
    for relation, row in zip(asked.relation, rows, strict=True):
        alike.setdefault((relation, len(row.prompt)), []).append(row)
    found = []
    for key in sorted(alike):
        kept = []
        for row in alike[key]:
            others = [o for o in alike[key] if o.options[0][0] != row.options[0][0] and o.prompt != row.prompt]
            if others:
                kept.append((row, others[rng.integers(len(others))]))
        if kept:
            clean, corrupt = (torch.tensor([pair[i].prompt for pair in kept]) for i in (0, 1))
            right, wrong = (torch.tensor([[pair[i].options[0][0]] for pair in kept]) for i in (0, 1))
            found.append(Pairs(clean, corrupt, right, wrong))
    if not found:
        raise ValueError("no two facts have subjects of one length and answers that begin differently")
    return found


def attribute(decoder: Decoder, pairs: list[Pairs], *, steps: int = 5) -> Tensor:
    """EAP-IG edge scores (sources, destinations), averaged over all pairs."""
    count = sum(map(len, pairs))
    return sum(scores.eap_ig(decoder, part, steps=steps) * (len(part) / count) for part in pairs)


def attribute_nodes(reader: Decoder | Nodes, pairs: list[Pairs], *, steps: int = 5) -> Tensor:
    """EAP-IG score of every source, (sources,), averaged over all pairs, whichever way the model is read."""
    if isinstance(reader, Decoder):
        return attribute(reader, pairs, steps=steps).sum(1)
    count = sum(map(len, pairs))
    return sum(reader.eap_ig(part, steps=steps) * (len(part) / count) for part in pairs)


def substituted(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Train questions about the facts, with another fact's answer in the place of the right one."""
    asked = facts.questions(split="train", table=table)
    table = facts.tidy(table)
    if table.object.nunique() < 2:
        raise ValueError("substituting answers needs facts with at least two different answers")
    order = np.random.default_rng(seed).permutation(len(table))
    other = {table.subject.iloc[order[i]]: table.object.iloc[order[i - 1]] for i in range(len(order))}
    return asked.assign(object=asked.subject.map(other))


@torch.no_grad()
def states(model, tokenizer, questions: pd.DataFrame, layers, *, batch: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states at the last token of every option (layers, n, d), and whether the option is the right one (n,).

    Raises ValueError for no questions, and for a layer that the model has not.
    """
    count = model.config.num_hidden_layers + 1
    if wrong := [layer for layer in layers if not 0 <= layer < count]:
        raise ValueError(f"layer {wrong[0]} is not one of the model's {count} hidden states: name 0 to {count - 1}")
    if questions.empty:
        raise ValueError("no questions to read hidden states of: the table of facts is empty")
    tokens.check_packs(model, "options")
    rows = facts.encode(tokenizer, questions.prompt, questions.options)
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        inputs, *_ = facts.pack(part, model.dtype, model.device)
        made = model.base_model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        made = torch.stack([made[layer] for layer in layers])
        for i, row in enumerate(part):
            ends = len(row.prompt) + np.cumsum([len(option) for option in row.options]) - 1
            found.append(made[:, i, torch.from_numpy(ends)])
    return torch.cat(found, 1).float().cpu().numpy(), np.tile([True, False, False, False], len(rows))


def probe(model, tokenizer, train: pd.DataFrame, test: pd.DataFrame, layers) -> dict[int, float]:
    """AUC with which a linear probe tells right from wrong options, by hidden-state layer; 0.5 is chance.

    train, test: questions. A ridge regression of right (1) or wrong (0) on standardised states of the training
    questions' options, asked about those of the test questions: facts it has not seen. The penalty is the number of
    dimensions.
    """
    (seen, right), (unseen, truth) = (states(model, tokenizer, asked, layers) for asked in (train, test))
    found = {}
    for layer, x, other in zip(layers, seen, unseen, strict=True):
        mean, spread = x.mean(0), x.std(0) + 1e-6
        x = (x - mean) / spread
        slope = np.linalg.solve(x.T @ x + len(mean) * np.eye(len(mean), dtype=x.dtype), x.T @ (right - right.mean()))
        said = (other - mean) / spread @ slope
        found[layer] = float(mannwhitneyu(said[truth], said[~truth]).statistic / truth.sum() / (~truth).sum())
    return found


def relearn(
    model,
    tokenizer,
    table: pd.DataFrame,
    *,
    looks=(0, 5, 10, 20),
    learning_rate: float = 1e-5,
    batch: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Teach half of the forgotten facts again; how well is the *other* half answered, held-out wordings?

    Returns one row a look: step and accuracy. The model comes back unchanged. A fact that was erased has to be learned
    by itself; one that was suppressed comes back with its kind. Raises ValueError for fewer than two facts.
    """
    if len(table) < 2:
        raise ValueError(f"relearning needs facts to teach and facts to ask, so at least two; got {len(table)}")
    order = np.random.default_rng([seed, 2]).permutation(len(table))
    taught, asked = (table.iloc[np.sort(part)] for part in (order[::2], order[1::2]))
    rows = forget_set.answers(tokenizer, facts.questions(split="train", table=taught))
    questions = facts.questions(split="heldout", table=asked)
    drawn = edits.batches(rows, batch, max(looks), np.random.default_rng(seed))
    everywhere, delta, done, found = edits.everywhere(model), {}, 0, []
    for look in sorted(looks):
        with edits.applied(model, delta):
            if look > done:
                more = edits.train(
                    model,
                    lambda step, done=done: objectives.nll(model, drawn[done + step]),
                    everywhere,
                    steps=look - done,
                    learning_rate=learning_rate,
                )
        if look > done:
            delta, done = edits.combine([delta, more]), look
        with edits.applied(model, delta):
            found.append({"step": look, "accuracy": facts.score(model, tokenizer, questions).correct.mean()})
    return pd.DataFrame(found)
