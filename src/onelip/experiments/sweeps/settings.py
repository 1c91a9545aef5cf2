"""Settings of a sweep."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onelip.errors import UsageError
from onelip.experiments.settings import Settings


@dataclass(frozen=True)
class SweepSettings(Settings):
    """Recipe, what all runs share, and what differs between them.

    Args:
        recipe: name of the recipe, as ``onelip train`` takes it.
        overrides: options of ``onelip train`` that all runs share.
        grid: values of each field that is varied, as they are written.
        search: what searches instead of a grid: ``optuna``; empty for a grid.
        space: interval or choices of each field that is searched, as they are written.
        trials: runs of the search.
        maximise: number of held-out images, as ``certified@0.5``.
        search_seed: of the search.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    grid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    search: Literal["", "optuna"] = ""
    space: Mapping[str, str] = field(default_factory=dict)
    trials: int = 0
    maximise: str = ""
    search_seed: int = 0

    def check(self) -> None:
        """Refuse a sweep without axes, and a field that is an option and an axis."""
        if self.search:
            self.require_positive("trials")
            self.require_not_negative("search_seed")
            if not self.maximise:
                raise UsageError("a search needs an aim: --maximise certified@EPS, or clean")
        if not self.grid and not self.space:
            raise UsageError("a sweep needs a grid: --grid FIELD=VALUE,VALUE FIELD=0..4")
        given = {word.split("=")[0].removeprefix("--") for word in self.overrides}
        if self.search and "evaluate" in given:
            raise UsageError("a search sees held-out images alone: leave --evaluate out")
        if both := given & {*self.grid, *self.space}:
            raise UsageError(f"{min(both)} is an option and in the grid: leave one of them out")

    @property
    def run_name(self) -> str:
        """Name of the sweep with a digest of its settings, so that the same command finds it."""
        text = json.dumps(self.as_record(), sort_keys=True)
        recipe = re.sub(r"[^A-Za-z0-9_-]", "_", self.recipe)
        return f"sweep-{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """Return what follows ``onelip train`` to begin a run with these values."""
        varied = [f"--{name}={value}" for name, value in values.items()]
        held_out = ["--evaluate=held-out"] if self.search else []
        return [self.recipe, *self.overrides, *held_out, *varied]
