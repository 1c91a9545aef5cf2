"""Settings of a sweep."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from onelip.errors import UsageError
from onelip.experiments.settings import Settings


@dataclass(frozen=True)
class SweepSettings(Settings):
    """Recipe, what all runs share, and what differs between them.

    Args:
        recipe: name of the recipe, as ``onelip train`` takes it.
        overrides: options of ``onelip train`` that all runs share.
        grid: values of each field that is varied, as they are written.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    grid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse a sweep without axes, and a field that is an option and an axis."""
        if not self.grid:
            raise UsageError("a sweep needs a grid: --grid FIELD=VALUE,VALUE FIELD=0..4")
        given = {word.split("=")[0].removeprefix("--") for word in self.overrides}
        if both := given & set(self.grid):
            raise UsageError(f"{min(both)} is an option and in the grid: leave one of them out")

    @property
    def run_name(self) -> str:
        """Name of the sweep with a digest of its settings, so that the same command finds it."""
        text = json.dumps(self.as_record(), sort_keys=True)
        recipe = re.sub(r"[^A-Za-z0-9_-]", "_", self.recipe)
        return f"sweep-{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
