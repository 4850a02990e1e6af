"""What does the model know? Facts with known answers, asked as four-option cloze questions.

A fact is a row of `data/facts.csv`: (relation, subject, object, domain). A question puts the subject into a prompt
template and offers the object among three distractors, other objects of the same relation (and of the same domain
where it has enough). The model's answer is the option with the highest log-probability per token, so chance is 1/4.

Templates are split: train templates may be used for screening, attribution and training, held-out ones only for
measuring, so that an edit cannot score by breaking one wording.

    questions = facts.questions("country_capital", split="heldout")
    results = facts.score(model, tokenizer, questions)          # one row per question: paired statistics need them
    results.correct.mean()

The four options of a question share one row of the batch: the prompt once, then every option, each seeing the prompt
and itself but no other option (a tree-shaped attention mask). Only hidden states that predict an answer token reach
the output head, whose 49,152 columns are the most expensive part of a short prompt.
"""

import string
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from compendium import packing, records, tokens
from compendium.paths import DATA, relative

COLUMNS = ["relation", "subject", "object", "domain"]
SPLITS = ("train", "heldout")
OPTIONS = 4
CHANCE = 1 / OPTIONS


def load(path=DATA / "facts.csv") -> pd.DataFrame:
    """All facts, columns relation, subject, object, domain, cells trimmed (`records.table`). Raises ValueError for a
    file that does not hold them."""
    table, shown = records.table(path, COLUMNS), relative(path)
    if table.empty:
        raise ValueError(f"{shown} holds no facts")
    blank = table.eq("").any(axis=1)
    if blank.any():
        raise ValueError(f"{shown}, line {blank.idxmax()}: an empty value")
    twice = table.duplicated(["relation", "subject"])
    if twice.any():
        raise ValueError(f"{shown}, line {twice.idxmax()}: this relation and subject came before")
    return table.reset_index(drop=True)


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """A table of facts from outside with its cells as `load` would give them, so that facts can be matched; other
    columns and the order of rows are kept. Raises ValueError for a missing column or value."""
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"the table of facts lacks column {missing[0]!r}: it needs {', '.join(COLUMNS)}")
    if table[COLUMNS].isna().any(axis=None):
        raise ValueError("the table of facts has missing values: read it with facts.load, or drop these rows")
    return table.assign(**{column: table[column].astype(str).map(records.clean).astype(str) for column in COLUMNS})


def templates(relation: str, split: str, path=DATA / "prompts.csv") -> list[str]:
    """Prompt templates of a relation, each with {subject}; split is "train" or "heldout". Raises ValueError for a
    relation without any, and naming the line of a template that cannot be filled."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    table = records.table(path, ["relation", "split", "template"])
    if relation not in set(table.relation):
        raise ValueError(f"no templates for relation {relation!r}: choose one of {', '.join(table.relation.unique())}")
    mine = table[table.relation == relation]
    for row in mine.itertuples():
        if row.split not in SPLITS:
            raise ValueError(f"{relative(path)}, line {row.Index}: unknown split {row.split!r}: say train or heldout")
        if not _fillable(row.template):
            raise ValueError(
                f"{relative(path)}, line {row.Index}: a template needs {{subject}} and no other braces; "
                f"got {row.template!r}"
            )
    found = mine.template[mine.split == split].tolist()
    if not found:
        raise ValueError(f"{relative(path)} has no {split} template for relation {relation!r}")
    return found


def _fillable(template: str) -> bool:
    """Whether {subject} is the one thing that can be put into a template."""
    try:
        fields = [field[1:] for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError:
        return False
    return bool(fields) and all(field == ("subject", "", None) for field in fields)


def fill(template: str, subject: str) -> str:
    """The prompt: subject put into the template, first letter capital, no trailing space."""
    text = template.format(subject=subject)
    return text[0].upper() + text[1:]


def questions(relation: str | None = None, *, split: str = "heldout", seed: int = 0, table=None) -> pd.DataFrame:
    """One row per fact and template: the fact's columns, template, prompt and options (right answer first).

    relation: one relation, or None for all. table: facts to ask, `load()` when None; distractors always come from
    all known facts of the relation. seed: of the distractors, which are the same for every template of a fact and do
    not depend on which other facts are asked.
    Raises ValueError for an unknown relation or split, or a relation with fewer than four different objects.
    """
    everything = load()
    asked = everything if table is None else tidy(table)
    if relation is not None:
        if relation not in set(asked.relation):
            raise ValueError(f"unknown relation {relation!r}: choose one of {', '.join(asked.relation.unique())}")
        asked = asked[asked.relation == relation]
    rows = []
    for name, group in asked.groupby("relation", sort=False):
        pool = pd.concat([everything[everything.relation == name], group]).drop_duplicates(COLUMNS)
        wordings = templates(name, split)
        for fact in group.itertuples(index=False):
            options = _options(fact, pool, seed)
            for template in wordings:
                rows.append((*fact[: len(COLUMNS)], template, fill(template, fact.subject), options))
    return pd.DataFrame(rows, columns=[*COLUMNS, "template", "prompt", "options"])


def _options(fact, pool: pd.DataFrame, seed: int) -> tuple[str, ...]:
    """The right answer and three distractors, drawn by a generator that depends on the seed and the fact alone."""
    others = pool[pool.object != fact.object]
    same = sorted(others.object[others.domain == fact.domain].unique())
    choices = same if len(same) >= OPTIONS - 1 else sorted(others.object.unique())
    if len(choices) < OPTIONS - 1:
        raise ValueError(f"relation {fact.relation!r} has fewer than {OPTIONS} different objects to choose from")
    key = [seed, *f"{fact.relation}/{fact.subject}".encode()]
    drawn = np.random.default_rng(key).choice(choices, OPTIONS - 1, replace=False)
    return (fact.object, *map(str, drawn))


@dataclass(frozen=True)
class Row:
    """A prompt and its options as token ids; the options follow the prompt, not each other."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.options))


def encode(tokenizer, prompts, options) -> list[Row]:
    """Token ids of each prompt with its options, `options` a sequence of strings per prompt.

    Text is tokenised whole, prompt and option together, and cut where the options of a prompt begin to differ from
    the prompt alone, so nothing is assumed about how the tokenizer treats spaces; an end token that it appends is taken
    off. Raises ValueError for an empty option, and for options that are the same tokens.
    """
    rows, end = [], tokens.appended(tokenizer)
    for prompt, answers in zip(prompts, options, strict=True):
        if any(not answer.strip() for answer in answers):
            raise ValueError(f"an empty option for the prompt {prompt!r}")
        texts = prompt, *(f"{prompt} {answer}" for answer in answers)
        asked, *whole = (ids[: len(ids) - end] for ids in (tokenizer(text)["input_ids"] for text in texts))
        cut = len(_common([asked, *whole]))
        if cut == 0 or any(len(ids) == cut for ids in whole):
            raise ValueError(f"the tokenizer leaves no answer tokens after the prompt {prompt!r}")
        if len(set(map(tuple, whole))) < len(whole):
            raise ValueError(
                f"the tokenizer does not tell the options {', '.join(map(repr, answers))} apart: it lacks their "
                "letters, or two of them are the same"
            )
        rows.append(Row(tuple(whole[0][:cut]), tuple(tuple(ids[cut:]) for ids in whole)))
    return rows


def _common(sequences) -> list[int]:
    """Longest common beginning."""
    common = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common


def pack(rows: list[Row], dtype, device):
    """Tensors for one batched pass over `rows`: `(inputs, positions, targets, owner, option)`.

    inputs: input_ids (b, t), position_ids (b, t), attention_mask (b, 1, t, t) additive in `dtype`.
    positions (m,): flat indices into (b * t) whose hidden state predicts an answer token; targets (m,): that token.
    owner, option (m,): which row and which of its options the token belongs to. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("there are no rows to read: the set of facts is empty")
    length, packed = max(map(len, rows)), []
    predict = []  # (flat index, target, row, option)
    for r, row in enumerate(rows):
        p = start = len(row.prompt)
        ids, position, blocks = list(row.prompt), list(range(p)), [(0, p, 0)]
        for o, option in enumerate(row.options):
            end = start + len(option)
            ids += option
            position += range(p, p + len(option))
            blocks.append((start, end, p))
            before = [p - 1, *range(start, end - 1)]
            predict += [(r * length + b, token, r, o) for b, token in zip(before, option, strict=True)]
            start = end
        packed.append(packing.Packed(ids, position, blocks))
    inputs = packing.inputs(packed, dtype, device)
    return inputs, *torch.tensor(predict, device=device).T


def log_probs(model, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Log-probability of every option after its prompt, summed over its tokens, and the number of those tokens.

    Returns two (rows, options) tensors, natural log; differentiable. Every row must have the same number of options.
    Options share a pass with their prompt where the model's attention takes a mask of that shape; else each is read
    with its prompt by itself, texts of one length together, which is slower and gives the same.
    """
    if len({len(row.options) for row in rows}) > 1:
        raise ValueError("rows with different numbers of options cannot share a batch: score them apart")
    if not tokens.can_pack(model, max(map(len, rows), default=0)):
        return _log_probs_alone(model, rows)
    inputs, positions, targets, owner, option = pack(rows, model.dtype, model.device)
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    unique, where = positions.unique(return_inverse=True)
    logits = tokens.readout(model, hidden.flatten(0, 1)[unique])
    # Normalisers once per position: the four options share the first one.
    token = logits[where, targets] - logits.logsumexp(-1)[where]
    shape = (len(rows), len(rows[0].options))
    cell = owner * shape[1] + option
    total = torch.zeros(shape[0] * shape[1], device=token.device).index_add(0, cell, token)
    return total.view(shape), cell.bincount(minlength=total.numel()).view(shape)


def _log_probs_alone(model, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """As `log_probs`, every option in a row of its own, without padding."""
    texts = [(r, o, row.prompt + option) for r, row in enumerate(rows) for o, option in enumerate(row.options)]
    if not texts:
        raise ValueError("there are no rows to read: the set of facts is empty")
    total = torch.zeros(len(rows), len(rows[0].options), device=model.device)
    count = torch.tensor([[len(option) for option in row.options] for row in rows], device=model.device)
    for length in sorted({len(ids) for _, _, ids in texts}):
        part = [text for text in texts if len(text[2]) == length]
        ids = torch.tensor([ids for _, _, ids in part], device=model.device)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        said = tokens.readout(model, hidden[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        for i, (r, o, _) in enumerate(part):
            total[r, o] = said[i, len(rows[r].prompt) - 1 :].sum()
    return total, count


@torch.inference_mode()
def score(model, tokenizer, questions: pd.DataFrame, *, batch: int = 32, progress: bool = False) -> pd.DataFrame:
    """Ask every question; returns `questions` without its options, plus per-item results.

    correct (bool): the right option has the highest log-probability per token. choice: the option it picked.
    logprob: of the right answer, nats per token. margin: that minus the best distractor's.
    """
    if questions.empty:
        raise ValueError("no questions to ask: the table of facts is empty")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    rows = encode(tokenizer, questions.prompt, questions.options)
    order = np.argsort([len(row) for row in rows], kind="stable")  # like lengths together: little padding
    table = np.empty((len(rows), OPTIONS), np.float32)
    for start in tqdm(range(0, len(rows), batch), desc="scoring", leave=False, disable=None if progress else True):
        index = order[start : start + batch]
        total, count = log_probs(model, [rows[i] for i in index])
        table[index] = (total / count).float().cpu().numpy()
    if np.isnan(table).any():  # NaN would count as the highest, and so as right
        raise ValueError("the model's log-probabilities are NaN: go back to a checkpoint from before training diverged")
    results = questions.drop(columns="options").reset_index(drop=True)
    best = table.argmax(1)
    results["correct"] = best == 0
    results["choice"] = [options[i] for options, i in zip(questions.options, best, strict=True)]
    results["logprob"] = table[:, 0]
    results["margin"] = table[:, 0] - table[:, 1:].max(1)
    return results


def known(model, tokenizer, table: pd.DataFrame | None = None, *, seed: int = 0, batch: int = 32) -> pd.DataFrame:
    """The facts the model answers correctly under a majority of their *train* templates.

    Screening on train templates keeps held-out accuracy an honest measurement: it is not 1 by selection.
    """
    results = score(model, tokenizer, questions(split="train", seed=seed, table=table), batch=batch)
    share = results.groupby(["relation", "subject"]).correct.mean().rename("share")
    table = (load() if table is None else tidy(table)).join(share, on=["relation", "subject"])
    return table[table.share > 0.5].drop(columns="share").reset_index(drop=True)
