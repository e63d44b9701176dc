"""What a report shows of recurrent layers: gates, memory, states, gradients through time."""

import html
from collections.abc import Mapping

import numpy as np

from lstm_research.analysis.charts import Line, heat_chart, histogram_chart, line_chart, scatter_chart
from lstm_research.analysis.dynamics import ByLag, LayerFlow
from lstm_research.analysis.gates import HIGH, LOW, gate_statistics, half_lives
from lstm_research.analysis.page import charts, section, table
from lstm_research.common.arrays import Array, Float
from lstm_research.models.recurrence.observe import Observed

NUM_UNITS = 32
"""Units whose gates are drawn over time."""

NUM_STATES = 2000
"""Hidden states that are drawn; of more, as many at even distances."""


def layer_section(name: str, observed: Observed) -> str:
    """Returns the section of one layer: its gates, how long its memory lasts, and where its states go."""
    statistics = gate_statistics(observed)
    rows = [
        [gate, each.mean, f"{100 * each.closed.mean():.1f} %", f"{100 * each.opened.mean():.1f} %"]
        for gate, each in statistics.items()
    ]
    lives = half_lives(observed)
    about = f"<p>{html.escape(str(observed.cell))}</p>\n<p>{html.escape(_memory(lives))}</p>\n"
    if observed.valid is None:
        about += "<p>This layer is told no lengths: where sequences are padded, padding counts.</p>\n"
    gates = table(["", "mean", f"below {LOW} (candidate: -{HIGH})", f"above {HIGH}"], rows) if rows else ""
    figures = []
    if statistics:
        points = {gate: (each.closed, each.opened) for gate, each in statistics.items()}
        figures.append(
            (
                scatter_chart(points, xlabel="saturated low", ylabel="saturated high", limits=(-0.02, 1.02)),
                "Share of steps in which a unit's gate is saturated, a point for every unit (Karpathy et al., 2015).",
            )
        )
    if (finite := _finite(lives)).size:
        chart = histogram_chart(finite, xlabel="half-life of the memory, steps", ylabel="units")
        figures.append((chart, "After how many steps half of a unit's memory is left."))
    figures += [
        (
            _trace(observed, values, 0.0 if gate.endswith("gate") else -1.0),
            f"{gate}: its first units over time, one sequence.",
        )
        for gate, values in observed.gates.items()
    ]
    figures.append((_projection(observed), "Hidden states, projected on their two main directions."))
    return section(f"Layer {name}", about, gates, charts(figures))


def training_section(moments: Mapping[str, Mapping[str, LayerFlow]], note: str = "") -> str:
    """Returns the section on gradients through time.

    Args:
      moments: by the moment of training, the layers by name.
      note: further words about the moments.
    """
    figures = []
    last = list(moments.values())[-1]
    for name, flow in last.items():
        for field in flow.loss_gradient:
            ys = {moment: layers[name].loss_gradient[field] for moment, layers in moments.items()}
            figures.append((_by_lag(ys, f"‖∂L/∂{field}‖"), f"{name}: gradient of the loss with regard to {field}."))
            ys = {moment: layers[name].jacobian[field] for moment, layers in moments.items()}
            caption = f"{name}: what is left of {field} in the last hidden state; 1 is all of it."
            figures.append((_by_lag(ys, f"‖∂h_T/∂{field}‖ / √P"), caption))
    said = (
        "Means over sequences of the validation split; a sequence's last step is at 1, and it begins at its last "
        f"reset. What is below 1e-38 is 0 in float32, and not drawn. {note}"
    )
    return section("Gradients through time", charts(figures), note=said.strip())


def jacobian_chart(runs: Mapping[str, ByLag]) -> list[tuple[str, str]]:
    """Returns a chart that compares how far gradients reach in the first layers of several runs."""
    lines = [
        Line(f"{name}, {field}", np.arange(1, len(norms) + 1), norms, "-" if field == "c" else "--", color)
        for color, (name, jacobian) in enumerate(runs.items())
        for field, norms in jacobian.items()
    ]
    if not lines:
        return []
    chart = line_chart(lines, xlabel="steps before the end", ylabel="‖∂h_T/∂s_t‖ / √P", log=True)
    return [(chart, "The first recurrent layer of each run: what is left of a state in the last hidden state.")]


def _by_lag(norms: Mapping[str, Float[np.ndarray, "_"]], ylabel: str) -> str:
    lines = [Line(label, np.arange(1, len(each) + 1), each) for label, each in norms.items()]
    return line_chart(lines, xlabel="steps before the end", ylabel=ylabel, log=True)


def _finite(lives: Float[np.ndarray, "H"]) -> Float[np.ndarray, "_"]:
    """Returns the half-lives of units that keep something and lose something."""
    return lives[np.isfinite(lives) & (lives > 0)]


def _memory(lives: Float[np.ndarray, "H"]) -> str:
    """Says in words how long the memory lasts."""
    parts = [f"{len(lives)} units"]
    if nothing := int((lives == 0).sum()):
        parts.append(f"{nothing} keep nothing but by their weights")
    if everything := int(np.isinf(lives).sum()):
        parts.append(f"{everything} lose nothing")
    if (finite := _finite(lives)).size:
        low, middle, high = np.quantile(finite, (0.1, 0.5, 0.9), method="inverted_cdf")
        parts.append(
            f"the half-lives of {len(finite)} are up to {low:.3g} steps in 10 %, {middle:.3g} in half and {high:.3g} "
            "in 90 % of them"
        )
    return f"Memory: {'; '.join(parts)}."


def _trace(observed: Observed, values: Array, low: float) -> str:
    """The gates of the longest sequence's first units over time."""
    valid = observed.valid
    row = 0 if valid is None else int(np.asarray(valid).sum(axis=0).argmax())
    steps = len(values) if valid is None else int(np.asarray(valid)[:, row].sum())
    colors = "viridis" if low == 0 else "coolwarm"
    return heat_chart(
        np.asarray(values)[:steps, row, :NUM_UNITS].T, xlabel="step", ylabel="unit", limits=(low, 1.0), colors=colors
    )


def _projection(observed: Observed) -> str:
    """Principal components of the hidden states, coloured by the step."""
    states = np.asarray(observed.states.h, np.float64)
    T, B = states.shape[:2]
    valid = np.ones((T, B), bool) if observed.valid is None else np.asarray(observed.valid)
    points = states[valid]
    steps = np.broadcast_to(np.arange(T)[:, None], (T, B))[valid]
    if len(points) > NUM_STATES:
        kept = np.linspace(0, len(points) - 1, NUM_STATES).astype(int)
        points, steps = points[kept], steps[kept]
    centred = points - points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:2].T
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    share = 100 * np.square(sizes[:2]) / max(np.square(sizes).sum(), 1e-30)
    names = [f"component {i + 1} ({share[i] if i < len(share) else 0:.0f} % of variance)" for i in range(2)]
    return scatter_chart(
        {"": (places[:, 0], places[:, 1])}, xlabel=names[0], ylabel=names[1], colors=steps, color_label="step"
    )
