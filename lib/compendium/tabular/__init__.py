"""Tabular foundation models: one pretrained network that classifies tables it has not seen, and what tuning adds.

`prior` draws random tables, `pfn` is the network that reads them and its scikit-learn classifier, `encode` what it
reads, `pretrain` how it learnt. `finetune` adapts it to one table; `suite` has real tables, `baselines` what must be
beaten, `metrics` performance, calibration, fairness and ranks. `backends` are other people's networks behind the same
interface.
"""
