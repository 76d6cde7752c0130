"""How a notebook shows figures: at twice their size, for sharp screens and print, and with their numbers as CSV."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.core.formatters import BaseFormatter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from traitlets import ObjectName, Unicode

COLUMNS = ("panel", "series", "x", "y", "low", "high")
MOST_POINTS = 300  # of one unnamed line; longer ones are single chains, drawn to be seen and not to be read off


class FigureNumbers(BaseFormatter):
    """The numbers of a figure beside its picture, in the outputs of a notebook."""

    format_type = Unicode("text/csv")
    print_method = ObjectName("_repr_csv_")


def show_with_numbers() -> None:
    """Inside of a notebook, sets both; elsewhere nothing."""
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return
    set_matplotlib_formats("retina")
    formatter = FigureNumbers(parent=shell.display_formatter)
    formatter.for_type(Figure, figure_csv)
    shell.display_formatter.formatters["text/csv"] = formatter


def figure_csv(figure: Figure) -> str | None:
    """What lines, bars and bands of a figure show, as CSV: panel, series, x, y, and low and high of a band; None for a
    figure of pictures alone."""
    rows = [row for k, axis in enumerate(figure.axes) for row in _rows(axis, _panel(axis, k))]
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, float_format="%.6g") if rows else None


def _panel(axis: Axes, k: int) -> str:
    words = (axis.get_title() or axis.get_title(loc="left"), " ".join(axis.get_ylabel().split()))
    return ": ".join(filter(None, words)) or f"panel {k + 1}"


def _rows(axis: Axes, panel: str) -> Iterator[tuple[Any, ...]]:
    for line in axis.lines:
        x, y = (np.ma.filled(np.ma.asarray(values, float), np.nan) for values in line.get_data())
        name = _name(line)
        if name or len(x) <= MOST_POINTS:
            yield from ((panel, name, a, b, None, None) for a, b in zip(x, y, strict=True))
    for bar in axis.patches:
        if hasattr(bar, "get_width"):
            yield panel, _name(bar), bar.get_width(), bar.get_y() + bar.get_height() / 2, None, None
    for band in axis.collections:
        corners = [tuple(p) for path in band.get_paths()[:1] for p in path.vertices] if _is_band(band) else []
        for x, points in groupby(sorted(corners), key=lambda p: p[0]):
            values = [y for _, y in points]
            yield panel, _name(band) or "band", x, None, min(values), max(values)


def _is_band(collection: Any) -> bool:
    return type(collection).__name__ in ("PolyCollection", "FillBetweenPolyCollection")


def _name(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label
