"""A prior-fitted network: a transformer that reads a table's labelled rows and predicts the others, without training.

One token a row (TabPFN, Hollmann et al. 2023, arXiv 2207.01848). A row's token is a linear map of its slots
(`encode`), plus an embedding of its class for context rows. In every layer, all rows attend to the context rows and
to nothing else: the order of rows means nothing, and a row to predict sees no other such row. A last linear map gives
the logits of ten classes, of which those beyond the context's are ruled out.

    classifier = PFNClassifier().fit(x_train, y_train)          # remembers the context, nothing is trained
    classifier.predict_proba(x_test)

Columns and classes have no order either, but slots and outputs do. The classifier therefore averages over members
that shuffle both, and that see numeric columns standardised or as ranks in turn.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn
from torch.nn import functional as F

from compendium import inputs, models, report
from compendium.paths import TABULAR, relative
from compendium.tabular.columns import Columns, framed, plain, positions
from compendium.tabular.encode import KINDS, SLOTS, Encoder, place

CHECKPOINT = TABULAR / "pfn.safetensors"
CLASSES = 10
ROWS_AT_ONCE = 4096  # rows to predict in one forward pass


@dataclass(frozen=True)
class Shape:
    """Sizes of a network."""

    width: int = 128
    layers: int = 6
    heads: int = 4
    hidden: int = 256  # of the two-layer perceptron in each layer


class Layer(nn.Module):
    """Attention to context rows, then a two-layer perceptron; normalised before each, added after each."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads = shape.heads
        self.before_attention, self.before_mlp = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.q, self.k, self.v, self.out = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)

    def attend(self, h: Tensor, context: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of all rows, keys and values of context rows: (tables, heads, rows or context, width / heads).

        Queries grow with the logarithm of the context, or attention would spread thin over long ones (scalable
        softmax, arXiv 2501.19399); the constant makes 128 rows neutral.
        """
        z = self.before_attention(h)
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        sharper = np.log(max(context, 2)) / np.log(128)
        return split(self.q(z)) * sharper, split(self.k(z[:, :context])), split(self.v(z[:, :context]))

    def forward(self, h: Tensor, context: int) -> Tensor:
        """h: (tables, rows, width), context rows first."""
        attended = F.scaled_dot_product_attention(*self.attend(h, context))
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.before_mlp(h))))


class Network(nn.Module):
    """`network(x, y)`: logits of the rows after the first y.shape[1]."""

    def __init__(self, shape: Shape = Shape()):
        super().__init__()
        self.shape = shape
        self.read = nn.Linear(2 * SLOTS, shape.width)
        self.classes = nn.Embedding(CLASSES, shape.width)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.layers)])
        self.last_norm, self.head = nn.LayerNorm(shape.width), nn.Linear(shape.width, CLASSES)
        for layer in self.layers:  # every layer begins as almost nothing
            nn.init.normal_(layer.out.weight, std=0.2 / (shape.width * 2 * shape.layers) ** 0.5)
            nn.init.normal_(layer.down.weight, std=0.2 / (shape.hidden * 2 * shape.layers) ** 0.5)
            layer.k.weight.data = layer.q.weight.data.clone()  # attention begins as likeness of rows

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """(tables, rows, width) tokens."""
        missing = x.isnan()
        h = self.read(torch.cat([x.masked_fill(missing, 0.0), missing.to(x.dtype)], -1))
        context = y.shape[1]
        return torch.cat([h[:, :context] + self.classes(y), h[:, context:]], 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: (tables, rows, SLOTS) float, nan: missing; y: (tables, context) classes of the first rows.

        Returns (tables, rows - context, CLASSES) logits, -inf for classes above the context's highest.
        """
        h = self.embed(x, y)
        for layer in self.layers:
            h = layer(h, y.shape[1])
        logits = self.head(self.last_norm(h[:, y.shape[1] :])).float()
        absent = torch.arange(CLASSES, device=x.device) > y.amax(1)[:, None, None]
        return logits.masked_fill(absent, -torch.inf)


def save_network(network: Network, path: Path, **recipe) -> str:
    """Write weights, shape and recipe as safetensors, in one step; returns the file's SHA-256."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()}
    notes = {"shape": json.dumps(asdict(network.shape)), "recipe": json.dumps(recipe, sort_keys=True)}
    report.write(path, _ordered(save(weights, metadata=notes)))
    return models.sha256(path)


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its header sorted: the package orders notes anew each time, and hashes would differ."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + content[start:]


def load_network(path: Path = CHECKPOINT, *, sha256: str | None = None) -> tuple[Network, dict]:
    """`(network, recipe)`, in evaluation mode. Raises ModelError: no such file, another hash, not such a network."""
    path = Path(path)
    if not path.is_file():
        raise models.ModelError(
            f"{relative(path)} is not there: it is committed; `dvc repro -f 04-pretrain` makes it anew"
        )
    if sha256 is not None and (found := models.sha256(path)) != sha256:
        raise models.ModelError(f"{relative(path)} has SHA-256 {found[:12]}..., not {sha256[:12]}...")
    try:
        with safe_open(path, "pt") as file:
            notes, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = Network(Shape(**json.loads(notes["shape"])))
        network.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise models.ModelError(f"{relative(path)} holds no such network: {str(error).splitlines()[0]}") from None
    return network.eval(), json.loads(notes["recipe"])


@lru_cache(maxsize=4)
def _loaded(path: str, changed: float, device: str) -> Network:
    return load_network(Path(path))[0].to(device)


class Member:
    """One view of a table: which context rows, how columns are scaled and placed, how classes are numbered.

    x: (rows, columns) as `Encoder` takes it; y: (rows,) classes 0 .. K-1. number: which member it is. context: at most
    so many rows, an equal share of each class. `rows` has their numbers, in the order in which the network reads them.
    """

    def __init__(self, x, y, nominal, *, seed: int, number: int, context: int):
        rng = np.random.default_rng([seed, number])
        self.rows = stratified(y, context, rng)
        self.encoder = Encoder(nominal, kind=KINDS[number % len(KINDS)], rng=rng).fit(x[self.rows])
        self.slots, self.part, self.deal = [seed, number, 1], number // len(KINDS), seed
        self.classes = rng.permutation(int(y.max()) + 1)  # class k is shown to the network as classes[k]
        self.y = self.classes[y[self.rows]]
        self.x = self.place(x[self.rows])

    def place(self, x) -> np.ndarray:
        """(rows, SLOTS) what the network reads of these rows."""
        z = self.encoder.transform(x)
        return place(z, np.random.default_rng(self.slots), part=self.part, deal=self.deal)


def stratified(y: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` row numbers in random order, each class by its share, and none left out while there is room."""
    order = rng.permutation(len(y))
    if len(y) <= size:
        return order
    # The i-th of n rows of a class is due at (i + 1/2) / n; the first of each class at once.
    due = np.empty(len(y))
    for k in np.unique(y):
        rows = order[y[order] == k]
        due[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        due[rows[0]] = 0
    return rng.permutation(order[np.argsort(due[order], kind="stable")[:size]])


@torch.no_grad()
def logits(network: Network, members: list[Member], x: np.ndarray) -> np.ndarray:
    """(members, rows, K) log-probabilities of rows x, classes in their own order."""
    made, device = [], next(network.parameters()).device
    for member in members:
        y = torch.from_numpy(member.y)[None].to(device)
        parts = []
        for start in range(0, len(x), ROWS_AT_ONCE):
            both = np.concatenate([member.x, member.place(x[start : start + ROWS_AT_ONCE])])
            found = network(torch.from_numpy(both)[None].to(device), y)[0, :, : len(member.classes)]
            parts.append(found.log_softmax(-1).double().cpu().numpy())
        made.append(np.concatenate(parts)[:, member.classes])
    return np.stack(made)


class PFNClassifier(ClassifierMixin, BaseEstimator):
    """Scikit-learn classifier around a pretrained network: `fit` keeps the rows, `predict_proba` reads them.

    network: None for the committed checkpoint, a path, or a `Network`. members: how many shuffled views to average.
    context: most rows a member sees; larger tables are sampled, by class, anew for each member. nominal: numbers or
    names of nominal columns, or a bool for each; None: none. In a data frame, columns of text, categories and booleans
    are nominal too, and `columns` says how others are read. temperature: of the averaged logits. random_state: an
    integer, or None for 0. device: where a checkpoint is loaded to; a `Network` stays where it is.

    The order of the labelled rows means nothing while all fit in the context; beyond it, which are drawn depends on it.
    The order of columns decides which slots they get, so other orders are other members, not other knowledge: frames
    must come with the columns of `fit` in its order.

    Missing values (nan, None) are welcome; levels not seen in `fit` count as missing. More than ten classes, labels
    that are missing or indexed otherwise than their rows, tables without a row, and columns that hold something else
    than in `fit` raise ValueError.
    """

    def __init__(
        self, network=None, *, members=8, context=1000, nominal=None, temperature=1.0, random_state=None, device="cpu"
    ):
        self.network = network
        self.members = members
        self.context = context
        self.nominal = nominal
        self.temperature = temperature
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _numbers(self, X, *, reset: bool) -> np.ndarray:
        """The table as (rows, columns) float64: nominal levels as codes, unseen ones and missing values nan."""
        X = framed(X)
        names = inputs.columns(X)
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, skip_check_array=True, reset=reset)
            if X.size == 0:
                sizes = f"{len(X)} sample(s) and {X.shape[1]} feature(s)"
                raise ValueError(f"Found array with {sizes}: at least 1 is required.")
            columns = [X.iloc[:, j] for j in range(X.shape[1])]
        else:
            given = plain(X)
            X = validate_data(self, given, dtype=np.float64, ensure_all_finite="allow-nan", reset=reset)
            # Levels are those given: large integers and fractions in single precision change in the conversion.
            exact = given if isinstance(given, np.ndarray) and given.dtype.kind in "iuf" else X
            columns = [pd.Series(column) for column in exact.T]
        if reset:
            self.names_ = names
            marked = positions(self.nominal, names, len(columns))
            self.columns_ = Columns().fit(columns, range(len(columns)) if names is None else names, marked)
            self.nominal_ = self.columns_.nominal
            self.levels_ = {j: found.names for j, found in self.columns_.levels.items()}
        else:  # scikit-learn compares names that are text, and warns of others
            inputs.same_columns(X, self.names_, "the model was fitted on")
        out = self.columns_.transform(columns)
        if np.isinf(out).any():
            raise ValueError("Input X contains infinity or a value too large for dtype('float64').")
        return out

    def fit(self, X, y):
        """Keep the labelled rows. X: array or data frame, (rows, columns); y: (rows,) labels of any kind."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        check_consistent_length(X, y)
        inputs.same_rows(X=X, y=y)
        masked = np.ma.is_masked(y)
        X, y = self._numbers(X, reset=True), column_or_1d(y, warn=True)
        if pd.isna(y).any() or masked:
            raise ValueError("Input y contains NaN: drop the rows without a label")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > CLASSES:
            raise ValueError(
                f"{len(self.classes_)} classes: this network knows at most {CLASSES}; merge classes, or wrap it in "
                "sklearn.multiclass.OutputCodeClassifier"
            )
        self._check_settings()
        seed = 0 if self.random_state is None else self.random_state
        self.members_ = [
            Member(X, codes, self.nominal_, seed=seed, number=i, context=self.context) for i in range(self.members)
        ]
        return self

    def _check_settings(self) -> None:
        whole = lambda value: isinstance(value, Integral) and not isinstance(value, bool)
        if not (whole(self.members) and whole(self.context)):
            raise ValueError(f"members and context must be whole numbers, got {self.members!r} and {self.context!r}")
        if self.members < 1 or self.context < len(self.classes_):
            raise ValueError("members must be positive, and context have room for a row of each class")
        if not isinstance(self.temperature, Real) or not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature must be a positive number, got {self.temperature!r}")
        if self.random_state is not None and not (whole(self.random_state) and self.random_state >= 0):
            raise ValueError(f"random_state must be None or a whole number from 0, got {self.random_state!r}")

    def _network(self) -> Network:
        if isinstance(self.network, nn.Module):
            return self.network
        path = Path(self.network or CHECKPOINT)
        return _loaded(str(path), path.stat().st_mtime if path.exists() else 0.0, self.device)

    def predict_proba(self, X) -> np.ndarray:
        """(rows, classes) probabilities, columns as in `classes_`."""
        check_is_fitted(self)
        X = self._numbers(X, reset=False)
        if len(self.classes_) == 1:
            return np.ones((len(X), 1))
        found = logits(self._network(), self.members_, X).mean(0) / self.temperature
        odds = np.exp(found - found.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def predict(self, X) -> np.ndarray:
        """(rows,) the most probable class."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(1)]
