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

from compendium import facts


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
    model, tokenizer, relation: str, name: str, *, seed: int = 0, retain: int = 100, far: int = 100, known=None
) -> Domain:  # fmt: skip
    """Forget the facts of `relation` whose domain is `name`; keep the rest of what the model knows.

    retain, far: at most this many facts to train on, and far ones to ask, drawn by `seed`. known: the facts the model
    knows, if at hand (`facts.known` takes a while). Raises ValueError when nothing known is to be forgotten, or
    nothing is left to keep.
    """
    table = facts.known(model, tokenizer) if known is None else known
    mine = (table.relation == relation) & (table.domain == name)
    if not mine.any():
        raise ValueError(
            f"the model knows no fact of relation {relation!r} and domain {name!r}: there is none to forget"
        )
    forget, others = table[mine], table[~mine & ~table.subject.isin(table[mine].object)]
    rng = np.random.default_rng(seed)
    others = others.iloc[rng.permutation(len(others))]
    near, rest = others[others.relation == relation], others[others.relation != relation]
    if len(near) < 2 or len(rest) < 2:
        raise ValueError(f"too few facts are left to keep beside {relation!r}, {name!r}: {len(others)}")
    trained = pd.concat([near[::2], rest[::2]])
    trained = trained.iloc[rng.permutation(len(trained))[:retain]]
    asked = {"forget": forget, "near": near[1::2], "far": rest[1::2][:far]}
    return Domain(
        f"{relation}, {name}",
        forget.reset_index(drop=True),
        trained.reset_index(drop=True),
        {kind: facts.questions(split="heldout", table=part, seed=seed) for kind, part in asked.items()},
    )
