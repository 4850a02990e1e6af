"""The tiny policy, and what a policy says: generation, accuracy with intervals, drift from where it began.

    model, tokenizer = policy.fresh(seed=0)                       # 0.87 million parameters, knows nothing
    model, tokenizer = policy.load("data/policies/start/policy")  # or "embedded", or a hub id with its revision
    answers = policy.ask(model, tokenizer, problems)              # one row a problem
    policy.summary(answers)                                       # accuracy, low, high, length, finished

The tiny policy is an ordinary `LlamaForCausalLM` with the 84-token vocabulary of `word_problems.tokenizer`, so that
TRL, PEFT and bitsandbytes take it as they take any other; its widths are multiples of 64, the block of NF4. `ask` reads
all policies alike: text in, text out, answers checked by `word_problems`.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compendium import models, stats, tokens
from compendium.policy_opt import mbpp, word_problems


def fresh(seed: int = 0, *, width: int = 128, layers: int = 3, heads: int = 4, inner: int = 576, positions: int = 128):
    """`(model, tokenizer)`: a random Llama with tied embeddings, in training mode; draws nothing from torch's own
    random state."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_problems.tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config), tokenizer


def load(name: str, **options):
    """`(model, tokenizer)` as `models.load` gives them, ready to generate in batches: padded on the left."""
    model, tokenizer = models.load(name, **options)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def prompts(tokenizer, questions: Sequence[str], *, chat: bool = False, instruction: str = "") -> list:
    """What TRL's data sets call prompts: the questions with `instruction` after them, or, for chat, messages."""
    texts = [f"{question}\n{instruction}" if instruction else question for question in questions]
    if not chat:
        return texts
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no chat template: say chat: false")
    return [[{"role": "user", "content": text}] for text in texts]


def _ids(tokenizer, prompts: Sequence) -> list[list[int]]:
    """Token ids, unpadded, of prompts as `prompts` makes them, without an end token that the tokenizer appends."""
    if prompts and not isinstance(prompts[0], str):
        return tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, return_dict=True)["input_ids"]
    return tokens.prompts(tokenizer, prompts)


@torch.no_grad()
def generate(
    model,
    tokenizer,
    prompts: Sequence,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    length: int = 64,
    seed: int = 0,
    batch: int = 256,
) -> list[list[int]]:
    """`samples` completions of each prompt, prompt after prompt: token ids, end of text included if it was reached.

    temperature: 0 takes the likeliest token. length: tokens at most. seed: of the sampling; torch's own random state
    is left as it was. batch: completions side by side.
    """
    from transformers import GenerationConfig

    rows = [ids for ids in _ids(tokenizer, prompts) for _ in range(samples)]
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    if not ends:
        raise ValueError("neither the tokenizer nor the model has an end token: nothing would say where an answer ends")
    pad = min(ends) if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # All that a model's own generation settings could change is named here: they fill what is left out.
    drawing = dict(do_sample=bool(temperature))
    drawing |= dict(temperature=temperature, top_k=0, top_p=1.0) if temperature else {}
    settings = GenerationConfig(
        max_new_tokens=length, pad_token_id=pad, eos_token_id=sorted(ends), repetition_penalty=1.0, **drawing
    )
    training, made = model.training, []
    model.eval()
    try:
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for i in range(0, len(rows), batch):
                inputs = tokens.padded(model, rows[i : i + batch], pad)
                out = model.generate(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=settings
                )
                made += out[:, inputs["input_ids"].shape[1] :].tolist()
    finally:
        model.train(training)
    return [row[: next((t + 1 for t, token in enumerate(row) if token in ends), len(row))] for row in made]


def right(text: str, problem) -> bool:
    """Whether a completion solves a `word_problems.Problem` or `mbpp.Program` (all tests passed)."""
    if isinstance(problem, mbpp.Program):
        return mbpp.share_passed(text, problem) == 1.0
    return word_problems.correct(text, problem.answer)


def ask(
    model,
    tokenizer,
    problems: Sequence,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    length: int = 64,
    seed: int = 0,
    chat: bool = False,
    instruction: str = "",
    batch: int = 256,
) -> pd.DataFrame:
    """One row a problem: `correct`, share of its completions that solve it; `length`, their mean length in tokens;
    `finished`, share that ended by themselves. Other arguments as for `generate` and `prompts`."""
    asked = prompts(tokenizer, [problem.question for problem in problems], chat=chat, instruction=instruction)
    made = generate(
        model, tokenizer, asked, samples=samples, temperature=temperature, length=length, seed=seed, batch=batch
    )
    return judged(tokenizer, problems, made, length)


def judged(tokenizer, problems: Sequence, completions: Sequence[Sequence[int]], length: int) -> pd.DataFrame:
    """What `ask` returns, for completions of at most `length` tokens that were generated before: as many for each
    problem, one problem's after the other's."""
    if not len(problems) or len(completions) % len(problems):
        raise ValueError(f"{len(completions)} completions are not as many for each of {len(problems)} problems")
    samples = len(completions) // len(problems)
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    rows = pd.DataFrame(
        {
            "problem": np.repeat(np.arange(len(problems)), samples),
            "correct": [float(right(text, problems[i // samples])) for i, text in enumerate(texts)],
            "length": [len(ids) for ids in completions],
            "finished": [float(len(ids) < length or ids[-1] == tokenizer.eos_token_id) for ids in completions],
        }
    )
    return rows.groupby("problem", as_index=False).mean()


def summary(answers: pd.DataFrame) -> dict:
    """Accuracy with its 95 % interval over problems, mean length and share finished, of what `ask` returns.

    Right-or-wrong answers get Wilson's interval, which stays sensible when all are right; shares the bootstrap's.
    """
    correct = answers.correct.to_numpy()
    if np.isin(correct, (0.0, 1.0)).all():
        low, high = stats.share_interval(int(correct.sum()), len(correct))
    else:
        low, high = stats.bootstrap_interval(correct)
    means = answers[["correct", "length", "finished"]].mean()
    return dict(
        accuracy=float(means.correct),
        low=low,
        high=high,
        length=float(means.length),
        finished=float(means.finished),
        n=len(answers),
    )


@torch.no_grad()
def logps(
    model,
    tokenizer,
    prompts: Sequence,
    completions: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    batch: int = 64,
) -> list[Tensor]:
    """Natural log-probability of every token of each completion given its prompt: one tensor a completion. Rows share a
    batch, and count as if each ran alone. Raises ValueError unless there are as many prompts as completions."""
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions: one for each is needed")
    training, found = model.training, []
    rows = _ids(tokenizer, prompts)
    model.eval()
    try:
        for i in range(0, len(rows), batch):
            pairs = list(zip(rows[i : i + batch], completions[i : i + batch], strict=True))
            inputs = tokens.padded(model, [[*p, *c] for p, c in pairs], tokenizer.pad_token_id)
            logits = model(**inputs).logits[:, :-1].float() / temperature
            of = logits.log_softmax(-1).gather(2, inputs["input_ids"][:, 1:, None])[..., 0].cpu()
            for row, (_, completion) in zip(of, pairs, strict=True):
                found.append(row[len(row) - len(completion) :])  # padded on the left: completions end together
    finally:
        model.train(training)
    return found


def drift(model, reference, tokenizer, prompts: Sequence, completions: Sequence[Sequence[int]]) -> float:
    """KL(model || reference) per token, nats, estimated on completions that `model` sampled (temperature 1): the mean
    of `divergences.k3` over their tokens."""
    ours, theirs = (torch.cat(logps(m, tokenizer, prompts, completions)) for m in (model, reference))
    gap = (theirs - ours).double()
    return float((torch.expm1(gap) - gap).mean()) if len(gap) else math.nan
