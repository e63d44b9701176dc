"""One recurrent layer, forward and backward: our cells and engines, and the layers of other libraries beside them.

For every shape all layers are built, checked and warmed first, and then timed in turn for a number of rounds. A time
is the median over the rounds. A ratio is computed within each round, between neighbours in time, and the median is
taken of these: on a machine that others use too, ratios of medians would compare different minutes.

- `forward`: the outputs of a whole sequence. `forward_backward`: the gradients of sum(ys²) to all parameters and to the
  inputs, which takes a forward pass too.
- `speed` of an entry against a peer: the peer's time over the entry's; above 1 the entry is faster. Only entries of one
  cell and dtype, and without noise, are compared.
- `cost` of an entry against a plainer one of ours on the same engine: its time over the other's. That of a cell with
  noise is against the same cell without; that of another cell is against `lstm`.
- `temporary_bytes`: what the compiled program allocates beside its arguments and results.
- `compile_seconds`: from the Python function to the program, nothing remembered.

The noise is drawn inside the timed function, so its cost counts, as in training; every call draws from the same key.

In bfloat16, our layers do what `Recurrent(dtype="bfloat16")` does with kernels that are bfloat16 already; the inputs
are bfloat16 too. `benchmarks/README.md` says what the peers do.

Beside plain LSTMs their parts are measured alone, see `parts.py`.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells import CELLS, Cell
from lstm_research.models.layers.dropout import DropoutRates, recurrent_masks
from lstm_research.models.recurrence import ENGINES, unroll
from lstm_research.models.recurrence.engines import pick_engine

from .entries import MEASURES, Entry, Label, Shape, compiling_anew, make_jax_entry, measure, median_ratio
from .machine import describe
from .parts import PARTS, describe_parts, make_part
from .parts import make_labels as make_part_labels
from .peers import PEERS
from .peers import make_entry as make_peer_entry

FORMAT = 2
OWN = "lstm_research"
BASELINES = ("flax", "torch")
"""The peers that ratios are taken against."""
NOISE = ("none", "recurrent_dropout", "zoneout")
DTYPES = ("float32", "bfloat16")
SHAPES = (
    Shape(32, 128, 256, 256),
    Shape(64, 35, 650, 650),
    Shape(20, 70, 400, 1150),
    Shape(1, 512, 128, 128),
    Shape(128, 64, 128, 512),
)
_RATE = 0.25  # of the noise: how much is dropped does not change what is computed


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, checked.

    Attributes:
      cells: names of `CELLS`.
      engines: names of `ENGINES`, and "auto"; None is all of them.
      shapes: sizes of layers.
      peers: names of `PEERS`; None is those that are installed.
      dtypes: of products; None is float32, and on a GPU bfloat16 too.
      noise: names of `NOISE`.
      repeats: the number of rounds.
    """

    cells: Sequence[str] = ("lstm",)
    engines: Sequence[str] | None = None
    shapes: Sequence[Shape] = SHAPES
    peers: Sequence[str] | None = None
    dtypes: Sequence[str] | None = None
    noise: Sequence[str] = ("none",)
    repeats: int = 9

    def __post_init__(self) -> None:
        engines = ["auto", *ENGINES]
        if self.engines is None:
            object.__setattr__(self, "engines", engines)
        _check_names("cell", self.cells, CELLS)
        _check_names("engine", self.engines or (), engines)
        _check_names("peer", self.peers or (), PEERS)
        _check_names("dtype", self.dtypes or (), DTYPES)
        _check_names("noise", self.noise, NOISE)
        for flag in ("cells", "engines", "shapes", "noise"):
            if not getattr(self, flag):
                raise UserError(f"--{flag} must name at least one")
        if self.repeats < 1:
            raise UserError(f"--repeats must be at least 1, got {self.repeats}")
        for name in self.peers or ():
            if not PEERS[name].is_installed():
                raise UserError(f"peer {name!r} is not installed; pip install {PEERS[name].distribution}")
        if self.peers is None:
            object.__setattr__(self, "peers", [name for name, peer in PEERS.items() if peer.is_installed()])


def _check_names(kind: str, names: Sequence[str], valid: Iterable[str]) -> None:
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
    if len(set(names)) < len(names):
        raise UserError(f"a {kind} is named twice: {', '.join(names)}")


def parse_shape(text: str) -> Shape:
    """Returns the shape that a text like 32x128x256x256 names: batch × time × input × hidden."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise UserError(f"a shape is BATCHxTIMExINPUTxHIDDEN, as in 32x128x256x256, got {text!r}")
    return Shape(*map(int, match.groups()))


def run(options: Options, finished_shape: Callable[[dict[str, Any]], None], say: Callable[[str], None]) -> dict:
    """Measures.

    Args:
      options: what to measure.
      finished_shape: called with the record after each shape, so that what is measured can be shown and kept.
      say: takes one line about what happens now.

    Returns:
      The record, in types that JSON has; `benchmarks/README.md` describes it.

    Raises:
      RuntimeError: an entry does not work.
    """
    dtypes = options.dtypes or (DTYPES if jax.default_backend() == "gpu" else DTYPES[:1])
    labels = make_labels(options, dtypes)
    jax_config: Any = jax.config
    record: dict[str, Any] = {
        "benchmark": "recurrence",
        "format": FORMAT,
        "machine": describe(_versions(options.peers or ())),
        "options": {**dataclasses.asdict(options), "shapes": [str(s) for s in options.shapes], "dtypes": list(dtypes)},
        "jax_default_matmul_precision": jax_config.jax_default_matmul_precision,
        "absent": {name: f"pip install {peer.distribution}" for name, peer in PEERS.items() if not peer.is_installed()},
        "shapes": [],
        "summary": [],
    }
    with compiling_anew():
        for shape in options.shapes:
            record["shapes"].append(_measure_shape(shape, labels, options.repeats, say))
            record["summary"] = summarize(record["shapes"])
            finished_shape(record)
    return record


def make_labels(options: Options, dtypes: Sequence[str]) -> list[Label]:
    """Returns all that the options ask for, whether it can be done or not: our layers, peers, parts of the LSTM."""
    kinds = [(cell, dtype) for dtype in dtypes for cell in options.cells]
    own = [
        Label(OWN, cell, engine, noise, dtype)
        for cell, dtype in kinds
        for noise in options.noise
        for engine in options.engines or ()
    ]
    peers = [Label(peer, cell, None, "none", dtype) for cell, dtype in kinds for peer in options.peers or ()]
    parts = [part for cell, dtype in kinds if cell == "lstm" for part in make_part_labels(dtype)]
    return own + peers + parts


def _measure_shape(shape: Shape, labels: Sequence[Label], repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    xs = np.random.default_rng(0).standard_normal((shape.time, shape.batch, shape.input_size), np.float32)
    entries: list[Entry] = []
    refused = []
    say(f"{shape}: building up to {len(labels)} layers and parts")
    for label in labels:
        try:
            entry = make_entry(label, shape, xs)
        except UserError as error:
            refused.append({"name": label.name, **label._asdict(), "reason": str(error)})
            continue
        except Exception as error:
            error.add_note(f"while building {label.name} at {shape}")
            raise
        if label.cell not in PARTS:
            entry.check(shape, _make_cell(label.cell, shape).output_size)
        entries.append(entry)
    say(f"{shape}: measuring {len(entries)} of them, rounds: {repeats}")
    seconds = measure(entries, repeats)
    return {
        "shape": shape._asdict(),
        "entries": describe_entries([entry for entry in entries if entry.label.cell not in PARTS], seconds),
        "parts": describe_parts(shape, entries, seconds),
        "refused": refused,
    }


def make_entry(label: Label, shape: Shape, xs: np.ndarray) -> Entry:
    """Builds and compiles what a label names.

    Raises:
      UserError: it cannot be had; says why.
    """
    if label.cell in PARTS:
        return make_part(label, shape)
    if label.library != OWN:
        return make_peer_entry(label, shape, xs)
    cell = _make_cell(label.cell, shape)
    rates = make_rates(label.noise, cell)
    inputs = jnp.asarray(xs, label.dtype)

    def layer(params: Params, xs: Array, key: PRNGKeyArray) -> Array:
        masks = recurrent_masks(key, rates, cell, (shape.time, shape.batch))
        return unroll(cell, params, xs, masks=masks, engine=label.engine or "auto")[1]

    params = {
        name: value.astype(label.dtype) if name.endswith("kernel") else value
        for name, value in cell.init(jax.random.key(0), shape.input_size).items()
    }
    key = jax.random.key(1)
    masks = recurrent_masks(key, rates, cell, (shape.time, shape.batch))
    carry = cell.initial_carry(params, (shape.batch,))
    taken, _ = pick_engine(label.engine or "auto", cell, params, inputs, carry, masks=masks)
    return dataclasses.replace(make_jax_entry(label, layer, params, inputs, key), engine_taken=taken)


def make_rates(noise: str, cell: Cell) -> DropoutRates:
    """Returns what a name of `NOISE` stands for; zoneout acts on c where the cell has one."""
    if noise == "zoneout":
        return DropoutRates(zoneout_c_rate=_RATE if "c" in cell.carry_sizes else 0.0, zoneout_h_rate=_RATE)
    return DropoutRates(recurrent_rate=_RATE if noise == "recurrent_dropout" else 0.0)


def _make_cell(name: str, shape: Shape) -> Cell:
    return build(CELLS, {"name": name, "hidden_size": shape.hidden_size}, where="cell")


def describe_entries(entries: Sequence[Entry], seconds: Mapping[str, Mapping[str, list[float]]]) -> list[dict]:
    """Returns one record for every entry: what it is, what was measured, and how it compares.

    Args:
      entries: of one shape.
      seconds: by name and measure, of every round; see `measure`.
    """
    labels = {entry.label for entry in entries}
    rows = []
    for entry in entries:
        label, own = entry.label, seconds[entry.label.name]
        speed = {}
        for baseline in BASELINES:
            other = Label(baseline, label.cell, None, "none", label.dtype)
            if label.noise == "none" and other in labels and other != label:
                speed[baseline] = {m: median_ratio(seconds[other.name][m], own[m]) for m in MEASURES}
        plain = plainer(label)
        cost = None
        if plain in labels:
            cost = {"against": plain.name, **{m: median_ratio(own[m], seconds[plain.name][m]) for m in MEASURES}}
        rows.append(
            {
                "name": label.name,
                **label._asdict(),
                "engine_taken": entry.engine_taken,
                "device": entry.device,
                "seconds": {m: list(own[m]) for m in MEASURES},
                "median_seconds": {m: statistics.median(own[m]) for m in MEASURES},
                "speed": speed,
                "cost": cost,
                "temporary_bytes": _copy(entry.temporary_bytes),
                "compile_seconds": _copy(entry.compile_seconds),
            }
        )
    return rows


def plainer(label: Label) -> Label | None:
    """Returns the entry that a cost is taken against: without noise, or with the plain LSTM."""
    if label.library != OWN:
        return None
    if label.noise != "none":
        return label._replace(noise="none")
    return label._replace(cell="lstm") if label.cell != "lstm" else None


def _copy(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else dict(values)


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the mean that treats a ratio and its inverse alike."""
    return math.exp(statistics.fmean(map(math.log, values)))


def summarize(shapes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns for every entry its ratios over all shapes where it and the other were measured.

    Each is given as geometric mean, least and largest value, and the number of shapes.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for shape in shapes:
        for entry in shape["entries"]:
            ratios = {f"speed against {name}": values for name, values in entry["speed"].items()}
            if entry["cost"]:
                ratios[f"cost against {entry['cost']['against']}"] = entry["cost"]
            for what, values in ratios.items():
                lists = found.setdefault(entry["name"], {}).setdefault(what, {m: [] for m in MEASURES})
                for m in MEASURES:
                    lists[m].append(values[m])
    return [
        {"name": name, "ratio": what, **{m: _spread(values) for m, values in lists.items()}}
        for name, ratios in found.items()
        for what, lists in ratios.items()
    ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "geometric_mean": geometric_mean(values),
        "least": min(values),
        "largest": max(values),
        "shapes": len(values),
    }


def _versions(peers: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import version

    return {PEERS[name].distribution: version(PEERS[name].distribution) for name in peers}
