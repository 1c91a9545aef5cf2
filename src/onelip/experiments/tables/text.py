"""A published table beside our runs, as aligned text."""

from onelip.directed_rounding import upwards
from onelip.experiments.tables.published import Ours, Row, Table, is_share
from onelip.experiments.tables.stored_runs import DISTANCES

_Line = tuple[str, list[tuple[str, str]], list[str]]
"""A label, numbers with their spread, and notes."""


def table_text(table: Table) -> str:
    """Format a line for each published row and, below it, one for each kind of run of ours."""
    sources = {row.source for row, _ in table.rows}
    lines: list[_Line] = [("", [(_heading(name), "") for name in table.columns], [])]
    for row, groups in table.rows:
        notes = [row.source] if len(sources) > 1 else []
        if not groups:
            notes.append(f"no run stored ({row.recipe})" if row.recipe else "published only")
        lines.append((row.row, _published(row, table.columns), notes))
        lines += [_line("  onelip", ours, table.columns) for ours in groups]
    published = len(lines)
    lines += [_line(f"  {ours.recipe}", ours, table.columns) for ours in table.other]
    text = _aligned(lines)
    title = f"{table.name}: {sources.pop()}" if len(sources) == 1 else table.name
    other = ["", "other runs", *text[published:]] if table.other else []
    unit = "; per cent of the test set" if any(map(is_share, table.columns)) else ""
    return "\n".join([title + unit, "", *text[:published], *other])


def _published(row: Row, columns: list[str]) -> list[tuple[str, str]]:
    cells = ((row.published.get(name, ""), row.published.get(f"std_{name}")) for name in columns)
    return [(text, f" ±{spread}" if spread else "") for text, spread in cells]


def _line(label: str, ours: Ours, columns: list[str]) -> _Line:
    values = [(ours.mean[name], ours.std.get(name), _places(name)) for name in columns]
    cells = [
        ("-" if mean is None else f"{mean:.{n}f}", "" if std is None else f" ±{std:.{n}f}")
        for mean, std, n in values
    ]
    count = len(ours.seeds)
    notes = ["1 run" if count == 1 else f"{count} runs", f"{ours.epochs}, {ours.minutes:.1f} min"]
    if ours.bound is not None:
        body = ours.body_bound
        head = "" if body is None else f" ({upwards(body, 6)} in front of the head)"
        notes.append(f"proved bound {upwards(ours.bound, 6)}{head}")
    return label, cells, [*notes, *ours.notes]


def _places(column: str) -> int:
    return 3 if column in DISTANCES else 2


def _heading(column: str) -> str:
    return "s/epoch" if column == "seconds_per_epoch" else column.replace("_", " ")


def _aligned(lines: list[_Line]) -> list[str]:
    """Align labels to the left and numbers to the right, with the ± signs below each other."""
    columns: list[list[str]] = [[label for label, _, _ in lines]]
    columns[0] = [label.ljust(max(map(len, columns[0]))) for label in columns[0]]
    for heading, *cells in zip(*(cells for _, cells, _ in lines), strict=True):
        width = max((len(spread) for _, spread in cells), default=0)
        texts = [heading[0], *(value + spread.ljust(width) for value, spread in cells)]
        columns.append([text.rjust(max(map(len, texts))) for text in texts])
    notes = ["; ".join(notes) for _, _, notes in lines]
    return ["  ".join(line).rstrip() for line in zip(*columns, notes, strict=True)]


def columns_text(rows: list[list[str]], left: int) -> str:
    """Align cells in columns: the first ones to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
