"""The figures of the reports, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from services.evaluation.calibration import Band
from triton_models.training.fusion.curve import Curve, FusionObjective

_STYLE = {"svg.hashsalt": "morphbatch", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
_COLOURS = ("#3b6fb6", "#d1782d", "#2a8a57")


def as_svg(figure: Figure) -> str:
    """A figure as SVG text, the same for the same figure."""
    text = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return text.getvalue()


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def fusion_curve(curve: Curve, objective: FusionObjective, alpha: float, members: tuple[str, str]) -> str:
    """Macro-F1, recall and precision against α, with the chosen one; shaded: as good by `objective`."""
    figure, axes = _axes(6.4, 3.6)
    for (name, values), colour in zip(curve.values.items(), _COLOURS, strict=True):
        chosen = name is objective
        axes.plot(curve.alpha, values, label=name.replace("_", " "), color=colour, linewidth=2 if chosen else 1.2)
    whole_height = axes.get_xaxis_transform()
    axes.fill_between(
        curve.alpha, 0, 1, where=curve.as_good(objective), transform=whole_height, color="#888", alpha=0.2
    )
    axes.axvline(alpha, color="#888", linestyle="--", linewidth=1)
    axes.annotate(f"α = {alpha:g}", (alpha, axes.get_ylim()[0]), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel=f"α: weight of {members[0]} (0: {members[1]} alone)", ylabel="on validation", xlim=(0, 1))
    axes.legend(frameon=False)
    return as_svg(figure)


def confusion(table: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Confusion matrix: rows truth, columns choice; shade by the row's share, numbers are cells."""
    side = max(3.2, 0.48 * len(classes) + 1.4)
    figure, axes = _axes(side, side)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), cells in np.ndenumerate(table):
        if cells:
            colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, str(cells), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="chosen", ylabel="truth")
    return as_svg(figure)


def reliability(bands: dict[str, list[Band]]) -> str:
    """Accuracy against confidence, a line a classifier."""
    figure, axes = _axes(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color="#888", linestyle="--", linewidth=1)
    most = max(band.cells for found in bands.values() for band in found)
    for (name, found), colour in zip(bands.items(), _COLOURS, strict=False):
        x, y = [band.confidence for band in found], [band.accuracy for band in found]
        axes.plot(x, y, label=name, color=colour, linewidth=1.2)
        axes.scatter(x, y, s=[6 + 90 * band.cells / most for band in found], color=colour, alpha=0.6)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False)
    return as_svg(figure)


def per_class(metrics: dict[str, dict[str, Any]], figure_name: str = "f1") -> str:
    """F1 of each class, a bar a classifier; the number of cells stands beside the class."""
    classes = list(next(iter(metrics.values()))["per_class"])
    figure, axes = _axes(6.4, 0.9 + 0.5 * len(classes))
    thickness = 0.8 / len(metrics)
    for at, ((name, found), colour) in enumerate(zip(metrics.items(), _COLOURS, strict=False)):
        values = [found["per_class"][label][figure_name] for label in classes]
        places = np.arange(len(classes)) + (at - (len(metrics) - 1) / 2) * thickness
        axes.barh(places, values, thickness * 0.92, label=name, color=colour)
    support = [next(iter(metrics.values()))["per_class"][label]["support"] for label in classes]
    labels = [f"{label} ({n})" for label, n in zip(classes, support, strict=True)]
    axes.set_yticks(range(len(classes)), labels)
    axes.invert_yaxis()
    axes.set(xlabel=figure_name.upper(), xlim=(0, 1))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return as_svg(figure)


def risk_coverage(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], target: float) -> str:
    """Share of errors among the cells that are kept, against the share that is kept: (coverage, risk) a classifier."""
    figure, axes = _axes(5.6, 3.6)
    for (name, (coverage, risk)), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot(coverage, risk, label=name, color=colour, linewidth=1.4)
    axes.axhline(1 - target, color="#888", linestyle="--", linewidth=1)
    axes.set(xlabel="share of cells kept", ylabel="share of errors among them", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False)
    return as_svg(figure)
