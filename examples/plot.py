"""Plot one column of a sweep's ``points.csv`` against a parameter, with its 95 % confidence intervals.

python plot.py outputs sigma price plot.png
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(directory: str, parameter: str, output: str, target: str) -> None:
    """Read ``directory/points.csv`` and write the figure ``target``."""
    with (Path(directory) / "points.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    x = [float(row[parameter]) for row in rows]
    mean = [float(row[f"{output}_mean"]) for row in rows]
    # Where all jobs of a point agree there is no interval to speak of.
    low = [float(row[f"{output}_ci_low"] or row[f"{output}_mean"]) for row in rows]
    high = [float(row[f"{output}_ci_high"] or row[f"{output}_mean"]) for row in rows]
    errors = [[m - below for m, below in zip(mean, low, strict=True)], [a - m for m, a in zip(mean, high, strict=True)]]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(x, mean, yerr=errors, marker="o", markersize=4, capsize=3, linewidth=1)
    axes.set(xlabel=parameter, ylabel=output, title=f"{rows[0][f'{output}_count']} jobs a point, 95 % intervals")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(target, dpi=120)
    print(f"{len(rows)} points in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:5])
