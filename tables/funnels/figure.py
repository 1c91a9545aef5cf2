"""Draw what critics reach of the distance of each pair, from the records and published rows.

python tables/funnels/figure.py docs/figures/funnels.png
"""

import argparse
import json
from pathlib import Path

from onelip.experiments.figures import checked_target, name_axes, new_figure, save_figure
from onelip.experiments.tables.published import read_table

HERE = Path(__file__).resolve().parent
PUBLISHED = (("sorting out", "C1", "s"), ("WGAN-GP", "C3", "x"))


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("to", type=Path)
    to = parser.parse_args().to
    checked_target(to)
    rows = {row.row: row.published for row, _ in read_table("funnels", HERE.parent).rows}
    records = [json.loads(file.read_text()) for file in HERE.glob("results/extension-*.json")]
    by_pair = {tuple(map(int, r["transport"]["task"].split("-")[1:])): r for r in records}
    pairs = sorted(by_pair)
    figure = new_figure(11, 4.2)
    axis = figure.subplots()
    places = range(len(pairs))
    axis.axhline(100, color="0.3", linewidth=1)
    for kind, color, marker in PUBLISHED:
        shares = []
        for d, n in pairs:
            label = f"{d} dimensions, {n} funnels"
            truth = by_pair[d, n]["truth"]
            shares.append(100 * float(rows[f"{label}: {kind}"]["wasserstein"]) / truth)
        axis.plot(places, shares, marker, color=color, label=f"{kind}, as published")
    for place, pair in zip(places, pairs, strict=True):
        result, truth = by_pair[pair]["result"], by_pair[pair]["truth"]
        low, middle, high = (100 * result[k] / truth for k in ("lower", "value", "upper"))
        axis.plot([place, place], [low, high], color="C0", linewidth=2)
        label = "Lipschitz extension, with interval" if place == 0 else None
        axis.plot(place, middle, "o", color="C0", label=label)
    axis.set_xticks(places, [f"{n}" for _, n in pairs], fontsize="small")
    dimensions = sorted({d for d, _ in pairs})
    for d in dimensions:
        inside = [place for place, pair in zip(places, pairs, strict=True) if pair[0] == d]
        middle = (inside[0] + inside[-1]) / 2
        axis.text(middle, 3, f"{d} dimensions", ha="center", fontsize="small")
        axis.axvline(inside[-1] + 0.5, color="0.85", linewidth=1)
    axis.set_ylim(0, 118)
    axis.set_xlim(-0.6, len(pairs) - 0.4)
    name_axes(axis, "funnels", "per cent of the distance")
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    save_figure(figure, to)


if __name__ == "__main__":
    main()
