"""Typed settings of a run: stored in its record, set by its command's options."""

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from onelip.errors import UsageError


@dataclass(frozen=True)
class Settings(abc.ABC):
    """Settings that a result depends on, besides the library, the data and the machine.

    Each kind of run has a dataclass that is derived from this one; its fields are options of the
    command, described under ``Args:``.
    """

    def __post_init__(self) -> None:
        _check_sizes(self)
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse values that no run can have.

        Raises:
            UsageError: the message names the option and its value.
        """

    @property
    @abc.abstractmethod
    def run_name(self) -> str:
        """Default beginning of the name of a run folder."""

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON takes them: dictionaries instead of views of them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }

    @classmethod
    def from_record(cls, stored: object) -> Self:
        """Return the settings that ``as_record`` has stored.

        Raises:
            ValueError: a field is unknown, or of another type or range.
        """
        from onelip.experiments.record_schema import converted  # its checks need an extra

        if not isinstance(stored, dict):
            raise ValueError(f"they are a {type(stored).__name__}, not an object")
        unknown = set(stored) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown setting {', '.join(map(repr, sorted(unknown)))}")
        return converted(stored, cls)

    def require_known(self, field: str, known: Iterable[str], *, called: str = "") -> None:
        """Refuse a field that is none of the known names.

        Raises:
            UsageError: the message lists them.
        """
        if getattr(self, field) not in known:
            name = getattr(self, field)
            raise UsageError(f"no {called or field} {name!r}; known: {', '.join(known)}")

    def require_positive(self, *names: str) -> None:
        """Refuse fields that are 0, negative or not a number.

        Raises:
            UsageError: see the class.
        """
        for name in names:
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name} must be positive, got {getattr(self, name)}")

    def require_not_negative(self, *names: str) -> None:
        """Refuse fields that are negative or not a number.

        Raises:
            UsageError: see the class.
        """
        for name in names:
            if not getattr(self, name) >= 0:
                raise UsageError(f"--{name} must not be negative, got {getattr(self, name)}")


def _check_sizes(settings: Settings) -> None:
    """Refuse whole numbers that torch cannot hold: seeds from 2^62, others from 2^31."""
    for name, value in vars(settings).items():
        power = 62 if name.endswith("seed") else 31
        if isinstance(value, int) and abs(value) >= 2**power:
            raise UsageError(f"--{name} must be below 2^{power}, got {value}")
