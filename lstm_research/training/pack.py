"""Trials that train as one program: their states stacked, the numbers in which they differ an argument.

Every trial's function (update, evaluation) is traced with its own config and compared with the others'; see
`packed_program`. One step of the pack is one step of each trial whose turn it is; the others keep their state.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from lstm_research.models.recurrence.mesh import stacked
from lstm_research.training.evaluation import IN_FLIGHT, make_evaluation_step, num_rows
from lstm_research.training.experiment import check_sections
from lstm_research.training.metrics import MetricSums
from lstm_research.training.packed_function import AXIS, PackedFunction, out_of_memory, shapes_of
from lstm_research.training.packed_program import TracedProgram
from lstm_research.training.run import Slot
from lstm_research.training.step import TrainState, make_plain_step

# Batches of training that are looked at to see whether their shapes vary.
_LOOKED_AT = 16


class Member:
    """One trial: its experiment, and its functions as programs.

    Args:
      experiment: of the trial.

    Attributes:
      experiment: of the trial.
      state: the shapes of its state.
    """

    def __init__(self, experiment: Any):
        self.experiment = experiment
        self.state = experiment.state_shapes
        task = experiment.task
        self._functions: dict[str, Callable[..., Any]] = {
            "update": make_plain_step(
                task,
                experiment.optimizer,
                accumulation_steps=experiment.training.accumulation_steps,
                average_decay=experiment.training.average_decay,
            ),
            "carry": lambda params, batch: task.initial_carry(params, num_rows(batch)),
            "evaluation": make_evaluation_step(task),
            "init": task.init,
        }
        self._traced: dict[Any, TracedProgram] = {}

    def program(self, name: str, *arguments: Any) -> TracedProgram:
        """Returns the program of a function for arguments of these shapes."""
        key = (name, shapes_of(arguments))
        if key not in self._traced:
            with stacked():
                self._traced[key] = TracedProgram(self._functions[name], *arguments)
        return self._traced[key]

    def is_like(self, other: "Member", batches: Mapping[str, PyTree]) -> bool:
        """Whether two trials can be one program, as far as batches of these shapes show.

        Args:
          other: the other trial.
          batches: one of every split.
        """
        if shapes_of(self.state) != shapes_of(other.state):
            return False
        return all(
            ours.is_like(theirs) for ours, theirs in zip(self.programs(batches), other.programs(batches), strict=True)
        )

    def programs(self, batches: Mapping[str, PyTree]) -> list[TracedProgram]:
        """Returns the programs that training with, and evaluation of, such batches needs."""
        programs = []
        for split, batch in batches.items():
            if split == "train":
                programs.append(self.program("update", self.state, batch))
            else:
                start = self.program("carry", self.state.params, batch)
                programs += [start, self.program("evaluation", self.state.params, batch, start.result)]
        return programs

    def share_task(self, others: Sequence["Member"], batches: Mapping[str, PyTree]) -> bool:
        """Takes over the task of a trial that starts and predicts alike, with all that it compiles; says whether."""
        own = check_sections(self.experiment.config)
        for other in others:
            theirs = check_sections(other.experiment.config)
            same = all(own[key] == theirs[key] for key in ("dataset", "task", "vocabulary"))
            if same and all(map(TracedProgram.equals, self._of_task(batches), other._of_task(batches))):
                self.experiment = dataclasses.replace(self.experiment, task=other.experiment.task)
                return True
        return False

    def _of_task(self, batches: Mapping[str, PyTree]) -> list[TracedProgram]:
        return [self.program("init", self.state.key), *self.programs(batches)[1:]]


class Group:
    """Trials that are alike; what is compiled for some of them serves all.

    Args:
      member: the first trial.

    Attributes:
      first: the first trial.
      varies: whether batches of training have more than one shape.
    """

    def __init__(self, member: Member):
        self.first = member
        task = member.experiment.task
        batches = task.train_batches(member.experiment.seed)
        some = [batches[step] for step in range(min(_LOOKED_AT, len(batches)))]
        self.varies = len({shapes_of(batch) for batch in some}) > 1
        # One of every split, to see whether others are like the first.
        self._batches = {"train": some[0]} | {split: task.eval_batches(split)[0] for split in task.splits()[1:]}
        self._functions: dict[Any, PackedFunction] = {}
        self._predicting: list[Member] = []

    def accepts(self, member: Member) -> bool:
        """Whether a trial is like the others."""
        return member.is_like(self.first, self._batches)

    def prepare(self, members: Sequence[Member]) -> None:
        """Finds the numbers in which trials differ before anything is compiled for some of them.

        Raises:
          NotPackableError: one of them is where no argument can be put.
        """
        first = self.first
        for member in members:
            if not member.share_task(self._predicting, self._batches):
                self._predicting.append(member)
        for split, batch in self._batches.items():
            if split == "train":
                self._prepare(members, "update", first.state, batch)
            else:
                self._prepare(members, "carry", first.state.params, batch)
                carry = first.program("carry", first.state.params, batch).result
                self._prepare(members, "evaluation", first.state.params, batch, carry)

    def at_once(self, rows: int) -> int:
        """Returns how many of a device's trials are best updated at once, a divisor of their number."""
        return self.function("update", self.first.state, self._batches["train"]).at_once(rows)

    def _prepare(self, members: Sequence[Member], name: str, *shapes: Any) -> None:
        numbers = self.numbers(members, name, *shapes)
        one = {index: values[0] for index, values in numbers.items()}
        jax.eval_shape(self.first.program(name, *shapes).run, one, *shapes)

    def numbers(self, members: Sequence[Member], name: str, *shapes: Any) -> dict[int, np.ndarray]:
        """Returns the numbers of trials in one of their functions."""
        return self.function(name, *shapes).numbers([member.program(name, *shapes) for member in members])

    def function(self, name: str, *shapes: Any) -> PackedFunction:
        """Returns one of the trials' functions, for arguments of these shapes."""
        key = (name, shapes_of(shapes))
        if key not in self._functions:
            self._functions[key] = PackedFunction(name, self.first.program(name, *shapes))
        return self._functions[key]


class PackedMetrics:
    """The metrics of one step of all trials, by turn; on the host once somebody asks."""

    def __init__(self, metrics: dict[int, dict[str, tuple[Any, Any]]]):
        self.device: Any = metrics
        self.host: dict[int, dict[str, tuple[list[Any], list[Any]]]] = {}


class Pack:
    """The stacked states of trials that are alike.

    They take turns: those of one turn are stacked, and computed at once. On all but CPUs there is one turn.

    Args:
      group: what the trials have in common.
      members: the trials, one a row.
      states: of each.
      size: the number of rows; those beyond the trials are the first trial's once more, and never updated. So packs of
        different sizes may share what is compiled.

    Attributes:
      size: the number of rows, which the devices divide evenly.
      turn: how many of them take one turn, each time those that come next.
    """

    def __init__(self, group: Group, members: Sequence[Member], states: Sequence[TrainState], size: int):
        self._group = group
        devices = jax.devices()[:size]
        each = -(-size // len(devices))
        self.size = each * len(devices)
        self._members = [*members, *[members[0]] * (self.size - len(members))]
        self._devices = devices
        self._at_once = group.at_once(each)
        self.turn = self._at_once * len(devices)
        self._mesh = None
        if len(devices) > 1:
            self._mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
        self._ready: dict[Any, tuple[Any, list[Any]]] = {}
        self._taken: tuple[int, TrainState] | None = None
        rows = [*states, *[states[0]] * (self.size - len(states))]
        self._states = [self._stack(self._of_turn(rows, turn)) for turn in range(self.size // self.turn)]

    def update(self, rows: Sequence[int], batches: Sequence[PyTree]) -> PackedMetrics:
        """Makes an update of some trials.

        Args:
          rows: of the trials.
          batches: of each row; one for all if it is only one.
        """
        shared = len(batches) == 1
        batch: Any = batches[0]
        if not shared:
            by_turn = {turn: self._of_turn(batches, turn) for turn in self._turns(rows)}
            batch = {turn: jax.tree.map(lambda *leaves: np.stack(leaves), *own) for turn, own in by_turn.items()}
        self._taken = None
        shapes = (self._group.first.state, batches[0])
        made = self._call("update", rows, shapes, (self._states, batch), (False, shared))
        for turn, (state, _) in made.items():
            self._states[turn] = state
        return PackedMetrics({turn: metrics for turn, (_, metrics) in made.items()})

    def evaluate(
        self, params: Mapping[int, PyTree], split: str, should_stop: Callable[[], bool]
    ) -> dict[int, dict[str, float] | Exception | None]:
        """Returns the metrics of weights over every target of a split; see `Evaluator.evaluate`.

        Args:
          params: of each trial that wants to know, by its row; the trials' data is the same.
          split: the split's name.
          should_stop: asked between batches.

        Returns:
          By row, metrics by name, or None if `should_stop` said so, or what went wrong with this trial.
        """
        rows, some = list(params), next(iter(params.values()))
        each = [params.get(row, some) for row in range(self.size)]
        stacked = {turn: self._stack(self._of_turn(each, turn)) for turn in self._turns(rows)}
        batches = self._members[rows[0]].experiment.task.eval_batches(split)
        sums = {row: MetricSums() for row in params}
        pending: list[Any] = []
        carry: Any = None
        shape: Any = None
        for index in range(len(batches)):
            if should_stop():
                return dict.fromkeys(params)
            batch = batches[index]
            weights = self._group.first.state.params
            if shape is None:
                carry = self._call("carry", rows, (weights, batch), (stacked, batch), (False, True))
                shape = self._group.first.program("carry", weights, batch).result
            shapes = (weights, batch, shape)
            made = self._call("evaluation", rows, shapes, (stacked, batch, carry), (False, True, False))
            carry = {turn: after for turn, (_, after) in made.items()}
            pending.append({turn: metrics for turn, (metrics, _) in made.items()})
            if len(pending) == IN_FLIGHT:
                self._drain(pending, sums)
        self._drain(pending, sums)
        results: dict[int, dict[str, float] | Exception | None] = {}
        for row, total in sums.items():
            task = self._members[row].experiment.task
            try:
                scores = task.scores(params[row], split, should_stop)
                results[row] = None if scores is None else task.metrics(total.as_dict()) | scores
            except Exception as error:  # of this trial; the others go on
                results[row] = error
        return results

    def take(self, row: int) -> TrainState:
        """Returns the state of one trial."""
        if self._taken is None or self._taken[0] != row:
            turn, place = divmod(row, self.turn)
            device = self._devices[place // self._at_once]
            shard = jax.tree.map(lambda leaf: _on_device(leaf, device), self._states[turn])
            self._taken = (row, _take(shard, place % self._at_once))
        return self._taken[1]

    def put(self, row: int, state: TrainState) -> None:
        """Replaces the state of one trial."""
        turn, place = divmod(row, self.turn)
        self._states[turn] = self._placed(_put(self._states[turn], place, state))
        self._taken = (row, state)

    def _call(
        self, name: str, rows: Sequence[int], shapes: tuple, arguments: tuple, shared: tuple[bool, ...]
    ) -> dict[int, Any]:
        """Runs a function of some trials; returns the results by turn.

        Args:
          name: of the function.
          rows: of the trials.
          shapes: of one trial's arguments, of which the second is a batch.
          arguments: of the function, by turn where they are not shared.
          shared: which of them all trials have in common.
        """
        leaves, structure = jax.tree.flatten(shapes[1])
        key = (name, shared, structure, *(leaf.shape for leaf in leaves))  # of the others there is one shape
        active = np.zeros(self.size, bool)
        active[list(rows)] = True
        results = {}
        for turn in self._turns(rows):
            own = (each if same else each[turn] for each, same in zip(arguments, shared, strict=True))
            given = (self._of_turn(active, turn), *own)
            if key not in self._ready:
                numbers = self._group.numbers(self._members, name, *shapes)
                by_turn = [
                    self._placed({index: self._of_turn(each, at) for index, each in numbers.items()})
                    for at in range(len(self._states))
                ]
                function = self._group.function(name, *shapes).compiled(self._mesh, by_turn[turn], given, shared)
                self._ready[key] = function, by_turn
            function, by_turn = self._ready[key]
            try:
                results[turn] = function(by_turn[turn], *given)
            except jax.errors.JaxRuntimeError as error:
                raise out_of_memory(error, len(self._members)) from error
        return results

    def _turns(self, rows: Sequence[int]) -> list[int]:
        return sorted({row // self.turn for row in rows})

    def _of_turn(self, rows: Any, turn: int) -> Any:
        return rows[turn * self.turn : (turn + 1) * self.turn]

    def _drain(self, pending: list[Any], sums: Mapping[int, MetricSums]) -> None:
        for metrics in jax.device_get(pending):
            for row, each in sums.items():
                turn, place = divmod(row, self.turn)
                each.add({name: (total[place], count[place]) for name, (total, count) in metrics[turn].items()})
        pending.clear()

    def _stack(self, trees: Sequence[PyTree]) -> PyTree:
        if self._mesh is not None:
            trees = jax.device_put(list(trees), self._devices[0])
        return self._placed(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))

    def _placed(self, tree: PyTree) -> PyTree:
        """Returns arrays divided among the devices along their first axis."""
        if self._mesh is None:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec(AXIS)))


class PackedSlot(Slot):
    """The state of one trial; in a pack, once it is part of one."""

    def __init__(self) -> None:
        self._own: TrainState | None = None
        self._pack: Pack | None = None
        self._row = 0

    def join(self, pack: Pack, row: int) -> None:
        """Makes this a view of one row of a pack that was made of this state among others."""
        self._pack, self._row, self._own = pack, row, None

    @property
    def state(self) -> TrainState:
        """The state."""
        if self._pack is not None:
            return self._pack.take(self._row)
        assert self._own is not None
        return self._own

    @state.setter
    def state(self, state: TrainState) -> None:
        if self._pack is None:
            self._own = state
        else:
            self._pack.put(self._row, state)

    def fetch(self, metrics: list[Any]) -> list[dict[str, Any]]:
        """Waits for the metrics of updates, and returns those of this trial as numbers."""
        assert self._pack is not None
        waiting = [each for each in metrics if each.device is not None]
        for each, host in zip(waiting, jax.device_get([each.device for each in waiting]), strict=True):
            each.host = jax.tree.map(np.ndarray.tolist, host)
            each.device = None
        turn, place = divmod(self._row, self._pack.turn)
        of_turn = (each.host[turn] for each in metrics)
        return [{name: (total[place], count[place]) for name, (total, count) in each.items()} for each in of_turn]


def _on_device(leaf: jax.Array, device: Any) -> jax.Array:
    """Returns the part of an array that lies on a device."""
    return next(shard.data for shard in leaf.addressable_shards if shard.device == device)


@jax.jit
def _take(state: PyTree, row: Any) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[row], state)


@functools.partial(jax.jit, donate_argnums=0)
def _put(state: PyTree, row: Any, one: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, new: leaf.at[row].set(new), state, one)
