"""Ceilings of certified accuracy on a data set, as a record and as text."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from onelip.data import Source, ceilings, open_data
from onelip.data.data_set import digest
from onelip.directed_rounding import upwards
from onelip.experiments.classification.text import format_eps
from onelip.image_sets import OWN


def ceiling_record(
    name: str, place: Path | None, label: str | None, split: str, eps: Sequence[Fraction]
) -> dict[str, Any]:
    """Bound the certified accuracy of every classifier on a split of a data set.

    Args:
        name: of a published data set, or ``"own"``.
        place: of its files; see ``onelip.data.Source``.
        label: column of the labels in a table of one's own.
        split: ``"train"`` or ``"test"``.
        eps: radii.

    Raises:
        UsageError: the data cannot be read.
    """
    source = None if place is None else Source(str(place), label)
    found = open_data(name, source, validation=None if name == OWN else 0)
    data = getattr(found, split)
    bounds = ceilings(data, eps)
    closest = bounds.closest
    return {
        "data": data.note or name,
        "split": split,
        "samples": len(data),
        "sha256": digest(data),
        "unit": found.info.unit,
        "pixels": found.info.box is not None,
        "closest": None if closest is None else closest._asdict(),
        "repeated": bounds.repeated,
        "contradicted": bounds.contradicted,
        "rows": [
            {
                "eps": float(row.eps),
                "exactly": str(row.eps),
                "pairs": row.pairs,
                "lost": row.lost,
                "certified": float(row.certified),
            }
            for row in bounds.rows
        ],
    }


def ceiling_text(record: dict[str, Any]) -> str:
    """Format a record of ceilings."""
    count, closest = record["samples"], record["closest"]
    lines = [f"{record['data']}, {record['split']}: {count} inputs; radii in {record['unit']}"]
    if closest is not None:
        lines.append(
            f"closest two of different labels: {closest['first']} and {closest['second']}, at "
            f"{closest['distance']:.4f}"
        )
    if record["repeated"] or record["contradicted"]:
        lines.append(
            f"equal inputs: {record['repeated']} repeat an earlier one, {record['contradicted']} "
            "pairs have different labels"
        )
    lines += ["", f"{'eps':>10}  {'pairs within 2 eps':>18}  {'lost':>6}  certified at most %"]
    for row in record["rows"]:
        most = upwards(100 * row["certified"], 2)
        eps = format_eps(row["eps"], record["pixels"])
        lines.append(f"{eps:>10}  {row['pairs']:>18}  {row['lost']:>6}  {most:>19}")
    return "\n".join(lines)
