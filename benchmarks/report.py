"""Results as tables, as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lstm_research.training.files import write_atomically

from .entries import MEASURES
from .recurrence import BASELINES
from .training import PARTS

_WAYS = {"one_at_a_time": "one at a time", "as_the_loop_runs": "as the loop runs"}


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Writes a record; the file is whole at every instant."""
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def print_machine(machine: Mapping[str, Any], console: Console) -> None:
    """Prints what was measured on, in two lines."""
    devices = ", ".join(sorted({device["kind"] for device in machine["devices"]}))
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    git = machine["git"] or {}
    commit = f", commit {git['commit'][:10]}{' (changed)' if git['dirty'] else ''}" if git else ""
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("python", "jax"))
    for line in (
        f"{machine['cpu']}, {machine['cores']} of {machine['cores_of_machine']} cores{memory}; JAX on {devices}",
        f"{machine['platform']}, {versions}{commit}, {machine['date']}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_shape(shape: Mapping[str, Any], console: Console) -> None:
    """Prints what was measured for one shape, and what could not be."""
    sizes = shape["shape"]
    title = "batch {batch}, time {time}, input {input_size}, hidden {hidden_size}".format(**sizes)
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("layer", no_wrap=True)
    for column in ("forward\nms", "forward +\nbackward ms", *(f"speed against\n{name}" for name in BASELINES)):
        table.add_column(column, justify="right")
    for column in ("cost", "temporary\nMiB", "compile\ns"):
        table.add_column(column, justify="right")
    for entry in shape["entries"]:
        memory, compiling = entry["temporary_bytes"], entry["compile_seconds"]
        table.add_row(
            f"{entry['name']} ({entry['engine_taken']})" if entry["engine"] == "auto" else entry["name"],
            *(f"{1e3 * entry['median_seconds'][measure]:.2f}" for measure in MEASURES),
            *(_pair(entry["speed"].get(name)) for name in BASELINES),
            _pair(entry["cost"]),
            "" if memory is None else " / ".join(f"{memory[measure] / 2**20:.1f}" for measure in MEASURES),
            "" if compiling is None else " / ".join(f"{compiling[measure]:.2f}" for measure in MEASURES),
        )
    console.print(table)
    _print_parts(shape["parts"], console)
    for line in refusals(shape["refused"]):
        console.print(f"  not measured: {line}", markup=False, highlight=False, soft_wrap=True)


def _print_parts(parts: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints the parts of an LSTM alone, and what share of each layer's time they would take."""
    if not parts:
        return
    table = Table(title="the parts of an lstm alone, and their share of its time", title_justify="left")
    for column in ("part", "ms", "GFLOP/s", "layer", "share of\nforward", "share of forward\n+ backward"):
        table.add_column(column, justify="left" if column in ("part", "layer") else "right")
    for part in parts:
        rate = "" if part["gflops"] is None else f"{part['gflops']:.3g}"
        head = (part["name"], f"{1e3 * part['median_seconds']:.2f}", rate)
        for layer, share in part["share"].items() or [("", {})]:
            shares = (f"{100 * share[measure]:.0f} %" if measure in share else "" for measure in MEASURES)
            table.add_row(*head, layer, *shares)
            head = ("", "", "")
        table.add_section()
    console.print(table)


def refusals(refused: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line a reason, with all that it holds for."""
    names: dict[str, list[str]] = {}
    for entry in refused:
        names.setdefault(entry["reason"], []).append(entry["name"])
    return [f"{', '.join(together)}: {reason}" for reason, together in names.items()]


def print_recurrence_summary(record: Mapping[str, Any], console: Console) -> None:
    """Prints the ratios over all shapes, and which peers are missing."""
    if record["summary"]:
        table = Table(title="over all shapes: geometric mean (least to largest)", title_justify="left")
        for column in ("layer", "ratio", "shapes", "forward", "forward + backward"):
            table.add_column(column, justify="left" if column in ("layer", "ratio") else "right")
        for row in record["summary"]:
            cells = (
                f"{row[measure]['geometric_mean']:.2f} ({row[measure]['least']:.2f} to {row[measure]['largest']:.2f})"
                for measure in MEASURES
            )
            table.add_row(row["name"], row["ratio"], str(row["forward"]["shapes"]), *cells)
        console.print(table)
    share = "share of products: what all of the layer's would take at the rate of the recurrent product alone"
    lines = [
        "speed: the peer's time over the layer's, median over rounds; above 1 the layer is faster",
        "cost: the layer's time over that of the same without noise, or of the plain LSTM",
        "two figures in a column: forward / forward + backward",
        *([share] if any(shape["parts"] for shape in record["shapes"]) else []),
        *(f"peer {name} is absent; {how}" for name, how in record["absent"].items()),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _pair(values: Mapping[str, float] | None) -> str:
    return "" if not values else " / ".join(f"{values[measure]:.2f}" for measure in MEASURES)


def print_training(recipe: Mapping[str, Any], console: Console) -> None:
    """Prints where the time of a training step goes."""
    sizes = f"{recipe['parameters']:,} parameters, {recipe['tokens_per_step']:,.0f} tokens a step"
    table = Table(title=f"{recipe['recipe']}: {sizes}", title_justify="left")
    table.add_column("steps", no_wrap=True)
    for column in ("step\nms", *(f"{part}\nms" for part in PARTS), "data and host\nshare", "tokens\na second"):
        table.add_column(column, justify="right")
    for way, words in _WAYS.items():
        values = recipe[way]
        step = values["step_seconds"]
        parts = (values[f"{part}_seconds"] for part in PARTS)
        table.add_row(
            words,
            f"{1e3 * step:.2f}",
            *(f"{1e3 * seconds:.2f} ({100 * seconds / step:.1f} %)" for seconds in parts),
            f"{100 * values['data_and_host_share']:.1f} %",
            f"{values['tokens_per_second']:,.0f}",
        )
    console.print(table)


def print_packed(recipe: Mapping[str, Any], console: Console) -> None:
    """Prints how many trials an hour each way trains."""
    table = Table(title=f"{recipe['recipe']}, {recipe['num_steps']:,} steps a trial", title_justify="left")
    table.add_column("trials", no_wrap=True)
    for column in ("step of\na trial ms", "speed of\na step", "all but\nsteps s", "trials\nan hour", "against\nalone"):
        table.add_column(column, justify="right")
    alone = recipe["ways"]["alone"]
    for name, values in recipe["ways"].items():
        table.add_row(
            name,
            f"{1e3 * values['step_seconds']:.3f}",
            f"{alone['step_seconds'] / values['step_seconds']:.2f}",
            f"{values['fixed_seconds']:.1f}",
            f"{values['trials_per_hour']:,.1f}",
            f"{values['trials_per_hour'] / alone['trials_per_hour']:.2f}",
        )
    console.print(table)


def print_training_legend(console: Console) -> None:
    """Prints what the columns mean."""
    for line in (
        "one at a time: data is made, the step is called (host), its results are waited for (device); nothing overlaps",
        "as the loop runs: batches are made in the background, results are waited for once at the end",
        "data and host share: 1 - device / step, with the device time of steps one at a time",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def plot_recurrence(record: Mapping[str, Any], path: Path) -> str | None:
    """Draws the speed of forward + backward against each peer, by shape and entry.

    Returns:
      Why there is no picture, or None if there is one.
    """
    from matplotlib.figure import Figure  # loading it takes a second, which a table need not wait for
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    shapes = record["shapes"]
    names = {
        baseline: list(dict.fromkeys(e["name"] for s in shapes for e in s["entries"] if baseline in e["speed"]))
        for baseline in BASELINES
    }
    baselines = [baseline for baseline in BASELINES if names[baseline]]
    if not baselines:
        return "no plot: nothing was measured beside flax or torch"
    most = max(map(len, names.values()))
    width = max(8, 1.2 + len(shapes) * (0.6 + 0.16 * most))
    figure = Figure(figsize=(min(width, 40), 3.6 * len(baselines) + 0.6), layout="constrained")
    axes = figure.subplots(len(baselines), 1, squeeze=False)[:, 0]
    # One colour an entry in both panels.
    every = list(dict.fromkeys(name for baseline in baselines for name in names[baseline]))
    for axis, baseline in zip(axes, baselines, strict=True):
        bar = 0.8 / len(names[baseline])
        for index, name in enumerate(names[baseline]):
            points = [
                (position, entry["speed"][baseline]["forward_backward"])
                for position, shape in enumerate(shapes)
                for entry in shape["entries"]
                if entry["name"] == name and baseline in entry["speed"]
            ]
            offset = (index - (len(names[baseline]) - 1) / 2) * bar
            style: dict[str, Any] = {
                "color": f"C{every.index(name) % 10}",
                "hatch": ("", "//", "..", "xx")[every.index(name) // 10 % 4],
                "edgecolor": "white",
            }
            places, heights = [x + offset for x, _ in points], [y - 1 for _, y in points]
            axis.bar(places, heights, 0.92 * bar, bottom=1, label=name, **style)
        axis.set_yscale("log")  # twice as fast is as far from 1 as half as fast
        low, high = axis.get_ylim()
        steps = (1, 1.2, 1.5, 2, 2.5, *range(3, 10)) if high < 4 * low else (1, 2, 5) if high < 200 * low else (1,)
        axis.yaxis.set_major_locator(LogLocator(subs=steps))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_ylabel(f"speed against {baseline}")
        axis.set_xticks(range(len(shapes)), ["x".join(map(str, shape["shape"].values())) for shape in shapes])
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    machine = record["machine"]
    device = machine["devices"][0]["kind"] if machine["devices"][0]["platform"] != "cpu" else machine["cpu"]
    figure.suptitle(
        f"forward + backward of one layer, batch x time x input x hidden; above 1 is faster\n"
        f"{device}, {machine['cores']} cores, {machine['date'][:10]}",
        fontsize="medium",
    )
    figure.savefig(path, dpi=120)
    return None
