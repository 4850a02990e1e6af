"""Who judges the metrics? Four questions to ask a score of explanations before believing it.

1. **Gate** (`gate`): does it rank the exact explanation of a known function above a shuffled one, and that above a
   reversed one? "Reversed" is the worse of two: the largest value where the least belongs, by value and by size.
2. **Validity** (`ladder`, `validity`): does its ranking of explanations agree with their distance from the truth? For
   the exact explanation with more and more noise, where the true order is ours; and for real methods, whose true order
   is their mean correlation with the exact attributions. Kendall's tau: 1 the same order, 0 no relation.
3. **Agreement** (`concordance`, `tau_matrix`): do metrics agree with each other? Kendall's W: 0 not at all, 1 fully.
   They may agree and all be wrong, which is why 2 comes first.
4. **Test-retest** (`retest`): does the order of methods survive another seed, baseline, or draw of rows?

Every one is asked as well of `noise`, a metric that gives each explanation a random number. `Case` is one model with
its methods, on which every metric can be evaluated under any setting; it is what `meta.tamper` turns the knobs of.

`DOMAINS` turns "context-specific" into data: requirements that an explanation must meet for one use, credit decisions
or screening, each a measure and a least value. **The requirements and their values are ours**, meant to be argued with
and replaced; no regulator set them. They are tested on real tables with a model whose exact explanation is known,
because it is additive (`additive_net`), and the exact explanation has to meet them too, else they ask the impossible.

The position paper (arXiv 2502.04695) states the problem in words; the tests are our reading of it.
"""

from compendium.xai.meta.cases import (
    CHEAP,
    COMPARED,
    Case,
    additive_net,
    centred,
    contributions,
    explainers,
    judged,
    knobs,
    trained_case,
)
from compendium.xai.meta.domains import SECRETS, domain, numbers, secret
from compendium.xai.meta.gating import (
    CONTROL,
    GIVEN,
    gate,
    impostors,
    known_case,
    noise,
    passes,
    passing,
    reversed_order,
)
from compendium.xai.meta.hiding import (
    Detector,
    Scaffold,
    attack,
    compare,
    one_column,
    preference,
    queries,
    scaffold,
    unknown,
)
from compendium.xai.meta.manipulation import REWRITINGS, fabricate, flips, ranges, ranks, tamper, won
from compendium.xai.meta.rank_validity import (
    climbs,
    closeness,
    concordance,
    ladder,
    ladder_validity,
    tau_matrix,
    validity,
)
from compendium.xai.meta.requirements import (
    CREDIT,
    DOMAINS,
    HEALTH,
    Domain,
    Requirement,
    Setting,
    direction_right,
    order_after_error,
    order_repeated,
    reasons_after_error,
    reasons_changeable,
    reasons_repeated,
    reasons_true,
    reasons_used,
    strongest_found,
)
from compendium.xai.meta.test_retest import icc, retest

__all__ = [
    "CHEAP",
    "COMPARED",
    "CONTROL",
    "CREDIT",
    "DOMAINS",
    "GIVEN",
    "HEALTH",
    "REWRITINGS",
    "SECRETS",
    "Case",
    "Detector",
    "Domain",
    "Requirement",
    "Scaffold",
    "Setting",
    "additive_net",
    "attack",
    "centred",
    "climbs",
    "closeness",
    "compare",
    "concordance",
    "contributions",
    "direction_right",
    "domain",
    "explainers",
    "fabricate",
    "flips",
    "gate",
    "icc",
    "impostors",
    "judged",
    "knobs",
    "known_case",
    "ladder",
    "ladder_validity",
    "noise",
    "numbers",
    "one_column",
    "order_after_error",
    "order_repeated",
    "passes",
    "passing",
    "preference",
    "queries",
    "ranges",
    "ranks",
    "reasons_after_error",
    "reasons_changeable",
    "reasons_repeated",
    "reasons_true",
    "reasons_used",
    "retest",
    "reversed_order",
    "scaffold",
    "secret",
    "strongest_found",
    "tamper",
    "tau_matrix",
    "trained_case",
    "unknown",
    "validity",
    "won",
]
