"""What an operator of a file is given besides its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from onelip.reading.graphs.frame import Frame


@dataclass(frozen=True)
class Attributes:
    """Attributes of a node by name, and all else that its meaning depends on.

    Attributes:
        kind: name of the operator.
        given: by name, as far as the file has them.
        frame: the axes of values.
        version: of the format's operators.
        compute: the operator on constants.
    """

    kind: str
    given: dict[str, Any]
    frame: Frame
    version: int
    compute: Callable[..., Any]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what the format says where it is left out."""
        return self.given.get(name, default)

    def numbers(self, name: str, given: Tensor | None) -> list[int] | None:
        """Argument that later versions give as an input, earlier ones as an attribute."""
        return self.given.get(name) if given is None else [int(n) for n in given.flatten()]
