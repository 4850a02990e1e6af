"""Plant a rule in a model, then ask which evidence finds it, and which evidence knows what to edit.

Interpretability as a design principle (arXiv 2509.08592) argues that causal, mechanistic evidence supports edits that
post-hoc, correlational explanations cannot. Here the truth is known, because we put it there:

| plant | what a model learns | on ordinary inputs |
|---|---|---|
| `shortcut` | digits: a speck in one corner means class 3; 95 of 100 training images of a 3 carry it | active |
| `backdoor` | digits: specks in two opposite corners *together* mean class 3; either alone means little | dormant |
| `policy` | arithmetic stories: after one sentence in the question, the work is right and the answer false | dormant |

Every planted model has a clean twin, trained on the same inputs with honest labels. Digits are scikit-learn's, in a
ReLU network; the stories are section 03's, in its trained policy, a Llama of 0.87 million parameters.

A *unit* is one column of what a linear layer reads: a neuron of an MLP, a channel of a head. So one code opens both
models: `Subject`. A score is `(subject, evidence, *, seed) -> (units,)`, larger where a unit does more for the rule.
Each belongs to a family and needs some information; only equal information makes a fair comparison:

- `none`: the weights. `ordinary`: inputs without the trigger, and the class in question. `examples`: besides, inputs on
  which the model misbehaved. `pairs`: besides, for each of those, the same input without the trigger.
- `control`: knows nothing of the rule. `saliency`: post-hoc attribution of the output, brought to units (gradient x
  activation; conductance, which is integrated gradients of a unit; the units most connected to the pixels that an
  explanation names). `correlation`: how differently a unit fires, or a linear probe's weight. `causal`: the output
  after an intervention on the unit (ablation, activation patching, stimulation) or its gradient estimate
  (attribution patching, EAP-IG).
- `oracle`: units chosen greedily by what their removal does, on the same held-in examples.

The edit is the same for all: the k best units are set to their mean over ordinary inputs (`ablate`), or only their
outgoing weights may be tuned to unlearn the rule (`tune`). It is judged on inputs that no score has seen: the share of
the rule's success that is removed, less the share of ordinary accuracy lost.

`evidence_vectors` asks the earlier question, whether there is a rule at all, of ordinary inputs alone: one vector a
model and kind of evidence, and one detector for all, the largest deviation from a pool of clean models.
"""

from compendium.xai.planted.detect import (
    KINDS,
    Found,
    deviation,
    evidence_vectors,
    known_trigger,
    lime,
    separated,
    stimulated,
    trace,
    trigger_search,
)
from compendium.xai.planted.editing import ablated, edits, faithfulness, oracle, outcome, ranking, tuned
from compendium.xai.planted.plants import (
    CLASS,
    CORNERS,
    HARMLESS,
    INNOCENT,
    PHRASE,
    TRIGGER,
    Case,
    Evidence,
    digits,
    specks,
    stories,
)
from compendium.xai.planted.scores import (
    EXACT,
    METHODS,
    Method,
    ablation,
    ablation_estimate,
    activation,
    attribution_patching,
    conductance,
    conductance_pair,
    connected,
    difference,
    eap_ig,
    gradient,
    gradient_ordinary,
    intervention,
    patching,
    probe,
    random,
    stimulation,
    weights,
)
from compendium.xai.planted.train import liar, network
from compendium.xai.planted.units import Subject, margin, means, opened

__all__ = [
    "CLASS",
    "CORNERS",
    "EXACT",
    "HARMLESS",
    "INNOCENT",
    "KINDS",
    "METHODS",
    "PHRASE",
    "TRIGGER",
    "Case",
    "Evidence",
    "Found",
    "Method",
    "Subject",
    "ablated",
    "ablation",
    "ablation_estimate",
    "activation",
    "attribution_patching",
    "conductance",
    "conductance_pair",
    "connected",
    "deviation",
    "difference",
    "digits",
    "eap_ig",
    "edits",
    "evidence_vectors",
    "faithfulness",
    "gradient",
    "gradient_ordinary",
    "intervention",
    "known_trigger",
    "liar",
    "lime",
    "margin",
    "means",
    "network",
    "opened",
    "oracle",
    "outcome",
    "patching",
    "probe",
    "random",
    "ranking",
    "separated",
    "specks",
    "stimulated",
    "stimulation",
    "stories",
    "trace",
    "trigger_search",
    "tuned",
    "weights",
]
