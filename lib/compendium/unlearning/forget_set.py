"""What to forget, what to keep, and what to ask afterwards.

    domain = domains.domain(model, tokenizer, "country_capital", "Europe", seed=0)
    domain.forget, domain.retain            # tables of facts to train on (train templates)
    domain.asked                            # {"forget", "near", "far"}: questions in held-out wordings

Only facts that the model knows are used, screened on train templates. Of the facts to keep, half are trained on and
the other half is asked: *near* ones of the same relation, *far* ones of all others. A fact whose subject is a forgotten
answer (Paris is in France) is neither trained on nor asked as one to keep: it is the forgotten one, backwards.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from compendium import facts, records


@dataclass(frozen=True)
class Domain:
    """name: "relation, domain". Tables have the columns of `facts.load`, questions those of `facts.questions`."""

    name: str
    forget: pd.DataFrame
    retain: pd.DataFrame
    asked: dict[str, pd.DataFrame]

    def rows(self, tokenizer) -> tuple[list[facts.Row], list[facts.Row]]:
        """Training rows (forget, retain): every fact in every train template, its answer the only option."""
        return tuple(answers(tokenizer, facts.questions(split="train", table=t)) for t in (self.forget, self.retain))


def answers(tokenizer, questions: pd.DataFrame) -> list[facts.Row]:
    """One training row per question: the prompt and its right answer."""
    return facts.encode(tokenizer, questions.prompt, [(answer,) for answer in questions.object])


def domain(
    model,
    tokenizer,
    relation: str,
    name: str,
    *,
    seed: int = 0,
    retain: int = 100,
    near: int = 60,
    far: int = 100,
    forget: int | None = None,
    pool: int | None = None,
    known: pd.DataFrame | None = None,
) -> Domain:
    """Forget the facts of `relation` whose domain is `name`; keep the rest of what the model knows.

    retain: at most this many facts to train on. near, far: at most this many facts to keep that are asked. Drawn by
    `seed`. forget: of the facts to forget, take only the first so many. pool: screen only so many facts to keep, half
    of them near; screening all takes a while. known: the facts that the model knows, if `facts.known` has found them
    already; then nothing is screened.
    Raises ValueError when nothing known is to be forgotten, or nothing is left to keep.
    """
    for key, value in {"retain": retain, "near": near, "far": far, "forget": forget, "pool": pool}.items():
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}: at least one fact is needed to train on or to ask")
    table = facts.load()
    relation, name = records.clean(relation), records.clean(name)
    mine = table[(table.relation == relation) & (table.domain == name)]
    if mine.empty:
        raise ValueError(f"there is no fact of relation {relation!r} and domain {name!r}: see data/README.md")
    if known is None:
        rest = others(table, mine, n=len(table) if pool is None else pool, seed=seed)
        known = facts.known(model, tokenizer, pd.concat([mine[:forget], rest], ignore_index=True))
    else:
        known = facts.tidy(known)
    gone = known[(known.relation == relation) & (known.domain == name)].iloc[:forget].reset_index(drop=True)
    rest = others(known, mine, n=len(known), seed=seed)
    same = rest.relation == relation
    parts = {"near": rest[same], "far": rest[~same]}
    if gone.empty or any(len(part) < 2 for part in parts.values()):
        raise ValueError(
            f"of {relation!r}, {name!r} the model knows {len(gone)} facts to forget, and {len(parts['near'])} near "
            f"and {len(parts['far'])} far ones to keep: choose another domain, or a larger pool"
        )
    trained = pd.concat([part[::2] for part in parts.values()])
    trained = trained.iloc[np.random.default_rng(seed).permutation(len(trained))[:retain]].reset_index(drop=True)
    asked = {"forget": gone, "near": parts["near"][1::2][:near], "far": parts["far"][1::2][:far]}
    return Domain(
        f"{relation}, {name}",
        gone,
        trained,
        {kind: facts.questions(split="heldout", table=part) for kind, part in asked.items()},
    )


def others(table: pd.DataFrame, forget: pd.DataFrame, *, n: int, seed: int = 0) -> pd.DataFrame:
    """At most n facts besides `forget` and those backwards; half of its relations where there are as many. Facts are
    matched as `facts.tidy` writes them."""
    table, forget = facts.tidy(table), facts.tidy(forget)
    key = ["relation", "subject"]
    mine = pd.MultiIndex.from_frame(table[key]).isin(pd.MultiIndex.from_frame(forget[key]))
    left = table[~mine & ~table.subject.isin(forget.object)]
    left = left.iloc[np.random.default_rng(seed).permutation(len(left))]
    near = left.relation.isin(forget.relation)
    return pd.concat([left[near].iloc[: max(n // 2, n - (~near).sum())], left[~near]]).iloc[:n].reset_index(drop=True)
