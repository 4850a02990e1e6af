"""Settings of a run: what is refused, and what the message says."""

import pytest

from compendium import settings
from compendium.paths import ROOT
from compendium.policy_opt import config


def test_a_file_is_read_and_checked(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("method: grpo\nlearning_rate: 1e-4\nrewards: {correct: 0.7, calculations: 0.3}\n")
    found = config.load(file, seed=3)
    assert (found.method, found.learning_rate, found.seed) == ("grpo", 1e-4, 3)
    assert found.rewards == {"correct": 0.7, "calculations": 0.3}
    assert config.differences(found, config.load(file)) == ["seed"]
    assert config.differences(found.but(batch=16), found) == ["batch"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": 1e-4}, "unknown parameter 'learning_rat': did you mean 'learning_rate'?"),
        ({"steps": "many"}, "parameter 'steps' is 'many' (str), but its default is 60 (int): give the same type"),
        ({"steps": True}, "give the same type"),
        ({"out": "here"}, "use --out"),
        ({"method": "drgrpo"}, "method: unknown 'drgrpo': did you mean 'dr_grpo'?"),
        ({"method": "ppo"}, "method: unknown 'ppo'"),
        ({"divergence": "probl2"}, "did you mean 'prob_l2'?"),
        ({"credit": "counterfactuals"}, "did you mean 'counterfactual'?"),
        ({"formats": ["nf5"]}, "formats: unknown 'nf5': did you mean 'nf4'?"),
        ({"evaluate": ["valid"]}, "evaluate: unknown 'valid': did you mean 'validation'?"),
        ({"split": "test"}, "split: unknown 'test'"),
        ({"backend": "deepspeed"}, "backend: unknown 'deepspeed'"),
        ({"hasty": 1.5}, "hasty is 1.5: give a share"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"look_every": 5, "evaluate": []}, "look_every without evaluate"),
        ({"task": "mbpp"}, "reward 'correct' judges stories and gsm8k, not mbpp"),
        ({"group": 1}, "a completion has no advantage over itself"),
        ({"batch": 60}, "batch 60 is no multiple of group 8"),
        ({"micro_batches": 3}, "batch 64 cannot be cut into 3 equal micro_batches"),
        ({"coefficient": 0.1}, "a coefficient without a divergence"),
        ({"coefficient": -0.1, "divergence": "k3"}, "coefficient is -0.1: it cannot be negative"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"high": "wide"}, "high is 'wide': give a number"),
        ({"rewards": {}}, "no rewards: name at least one"),
        ({"rewards": {"correct": "much"}}, "rewards: the weight of 'correct' is 'much'"),
        ({"credit": "random", "method": "gspo"}, "credit cannot act through gspo's ratio"),
        ({"mirror": 0.5}, "mirror is 0.5: give a seed or a file"),
        ({"save_every": 3, "updates": 2}, "save_every 3 is no multiple of updates 2"),
        ({"overlong_buffer": 65}, "overlong_buffer 65 is longer than length 64"),
        ({"model": "fresh"}, "train it with method: sft first"),
        ({"task": "pairs", "method": "dpo"}, "task pairs needs a source"),
        ({"task": "pairs", "source": "x.jsonl"}, "task pairs is for dpo and reward, not dr_grpo"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(given, message):
    with pytest.raises(config.ConfigError) as error:
        config.make(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(settings.SettingsError, match="no parameters file"):
        config.load(tmp_path / "none.yaml")


def test_paths_are_found_from_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert config.make({"model": "lib/compendium"}).model == str(ROOT / "lib/compendium")
    assert config.make({"rewards": {"lib": 2.0}}).rewards == {str(ROOT / "lib"): 2.0}
    assert config.make({"model": "owner/model"}).model == "owner/model"
