"""Erased or only suppressed? How well auditors tell, by the evidence they may look at.

An absence claim says that a model cannot do something any more. Seth & Sankarapu (arXiv 2605.15164) hold that behaviour
cannot carry such claims and name three classes of evidence that look inside: linear probes, activation patching, and
comparison of the model before and after training. Their text gives no experiment that we could read; this one is ours.

**Pairs by construction** (`study`). The subjects are real: pictures of handwritten digits (scikit-learn). The facts are
not: for each digit and each of eight relations, one of four answers drawn at random. What a network answers about a
fact that it was never taught says nothing about the truth, so *erased* is exact here, and not a matter of degree. One
network learns all facts (`knows`); others are taught all but those to forget (`rolled back` to the checkpoint before,
or `retrained` from new weights). Then **one and the same treatment is given to all of them**: each learns to give decoy
answers, or none, to the forgotten questions (MECHANISMS). No treatment uses a true answer. So a treated network that
knew and one that did not know were trained on the same rows and behave alike; they differ in what lies underneath.

    frame = study(range(8))                        # one row a model: what it is, evidence, truth
    audit(frame, ladder()["probes"])               # log-odds by an auditor that met neither its seed nor its mechanism
    climb(frame[frame.mechanism.isin(MECHANISMS)])  # the audit ladder: AUC by evidence, intervals by seed

**Real models** (`runs`, `climb_runs`): the unlearned language models of section 02. There nobody knows what is erased;
the stand-in is how much comes back when other forgotten facts are taught again, or after storage in 4 bits.

How to read an AUC: 0.5 is a coin, 1 tells every suppressed model from every erased one. A score below 0.5 is not
turned round: the direction of every score is fixed beforehand (higher: more suppressed).
"""

from compendium.xai.audit.auditor import auc, auc_interval, audit, climb, gain
from compendium.xai.audit.evidence import (
    EVIDENCE,
    advantage,
    behaviour,
    comparison,
    patching,
    probes,
    relearned,
    similarity,
    stored,
)
from compendium.xai.audit.password_world import (
    ANSWERS,
    ASCENT,
    DIGITS,
    MECHANISMS,
    REFUSAL,
    World,
    hide,
    network,
    origins,
    states,
    taught,
    train,
    treated,
    with_password,
    world,
)
from compendium.xai.audit.real_runs import RUN_COLUMNS, RUN_SCORES, climb_runs, judge_runs, rank_interval, runs
from compendium.xai.audit.rungs import COLUMNS, SCORES, TRUTHS, examined, ladder, matched, shuffled, study, untrained

__all__ = [
    "ANSWERS",
    "ASCENT",
    "COLUMNS",
    "DIGITS",
    "EVIDENCE",
    "MECHANISMS",
    "REFUSAL",
    "RUN_COLUMNS",
    "RUN_SCORES",
    "SCORES",
    "TRUTHS",
    "World",
    "advantage",
    "auc",
    "auc_interval",
    "audit",
    "behaviour",
    "climb",
    "climb_runs",
    "comparison",
    "examined",
    "gain",
    "hide",
    "judge_runs",
    "ladder",
    "matched",
    "network",
    "origins",
    "patching",
    "probes",
    "rank_interval",
    "relearned",
    "runs",
    "shuffled",
    "similarity",
    "states",
    "stored",
    "study",
    "taught",
    "train",
    "treated",
    "untrained",
    "with_password",
    "world",
]
