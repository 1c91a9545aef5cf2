"""Typed schema of records, through which every ``metrics.json`` is read.

A field that is missing, or of another type or range, is named in one line. Fields that the schema
does not know are handed on as they are.
"""

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar, cast

from onelip.errors import UsageError, missing_extra

try:
    import msgspec
    from msgspec import Meta
except ImportError as error:
    raise missing_extra("msgspec", "train") from error

_MOST = 1.7976931348623157e308

Finite = Annotated[float, Meta(ge=-_MOST, le=_MOST)]
Length = Annotated[float, Meta(ge=0, le=_MOST)]
"""A bound, a distance, seconds: finite and not negative."""
Positive = Annotated[float, Meta(gt=0, le=_MOST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, lt=2**62)]
Radius = Annotated[str, Meta(pattern=r"^[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?$")]
"""A positive number as the key of a JSON object."""


class Session(TypedDict):
    """Process that worked on a run."""

    commit: str | None
    versions: dict[str, str]
    device: str
    threads: NotRequired[Count]
    started: str


Side = Annotated[int, Meta(ge=1, lt=2**31)]


class Split(TypedDict):
    """Number and digest of the inputs of a split, and how it was made if the files lack it."""

    count: Count
    made: str | None
    sha256: str


class Data(TypedDict):
    """Source of the inputs, and what is in them."""

    note: NotRequired[str]
    train: NotRequired[Count]
    folder: NotRequired[str | None]
    name: NotRequired[str]
    label: NotRequired[str | None]
    size: NotRequired[Annotated[list[Side], Meta(min_length=2, max_length=2)] | None]
    shape: NotRequired[Annotated[list[Side], Meta(min_length=1, max_length=3)]]
    classes: NotRequired[Annotated[list[str], Meta(min_length=2)]]
    columns: NotRequired[list[str]]
    mean: NotRequired[list[Finite]]
    std: NotRequired[list[Positive]]
    notes: NotRequired[list[str]]
    split_seed: NotRequired[Count]
    splits: NotRequired[dict[str, Split]]


class Epoch(TypedDict):
    """Notes of an epoch, beside the metrics of its loss."""

    seconds: Length


class Training(TypedDict):
    """Training, complete or stopped."""

    complete: bool
    processes: NotRequired[Count]
    epochs: list[Epoch]
    seconds: Length
    parameters: NotRequired[Count]


class Accuracy(TypedDict):
    """Accuracies of a certificate on a set of images."""

    samples: Count
    clean: Share
    certified: dict[Radius, Share]


class Certify(TypedDict):
    """Settings and accuracies of a certificate."""

    method: str
    certificate: NotRequired[str]
    level: typing.Literal["real", "float"]
    bound: Length
    body_bound: Length
    logits: NotRequired[str]
    data: str
    test: Accuracy
    held_out: NotRequired[Accuracy]
    seconds: Length


class Attacked(TypedDict):
    """Accuracies of the same images at a radius."""

    eps: Positive
    certified: Share
    attacked: Share


class Attack(TypedDict):
    """Results of a set of attacks on a number of images."""

    attacks: list[str]
    samples: Annotated[int, Meta(ge=1, lt=2**62)]
    clean: Share
    eps: list[Attacked]
    seconds: Length


class Averages(TypedDict, total=False):
    """Mean constants of pairs of logits."""

    pairwise: Length
    sum: Length
    sqrt2: Length


class AveragesByMethod(TypedDict):
    """Averages by the method that proved them."""

    naive: NotRequired[Averages]
    liplt: NotRequired[Averages]


class Tightness(TypedDict):
    """Tightness of the radii before an MLP head."""

    exact: Share
    ratio: Length
    pairs_proved: Count


class Record(TypedDict):
    """Fields of every run."""

    commit: NotRequired[str | None]
    versions: NotRequired[dict[str, str]]
    device: NotRequired[str]
    threads: NotRequired[Count]
    started: NotRequired[str]
    sessions: NotRequired[list[Session]]


class Code(TypedDict):
    """Code of the user's own: its name, its file, and the digest of that."""

    name: str
    file: str
    sha256: str


class TrainingRecord(Record):
    """Record of ``onelip train``."""

    recipe: dict[str, Any]
    code: NotRequired[dict[str, Code]]
    data: NotRequired[Data]
    train: NotRequired[Training]
    held_out: NotRequired[Accuracy]
    certify: NotRequired[Certify]
    averaged: NotRequired[dict[str, Certify]]
    attack: NotRequired[dict[str, Attack]]
    constants: NotRequired[AveragesByMethod]
    tightness: NotRequired[Tightness]
    bound: NotRequired[dict[str, Any]]
    singular_values: NotRequired[dict[str, Any]]


class Identity(TypedDict):
    """Source of samples, and the numbers that identify them."""

    name: str
    note: str
    count: Count
    held_out: Count
    shape: Annotated[list[Side], Meta(min_length=1, max_length=3)]
    dtype: str
    sha256: str


class Pair(TypedDict):
    """Samples of P and Q."""

    p: Identity
    q: Identity


class Critic(TypedDict):
    """Architecture of a trained critic."""

    kind: str
    layer: str | None
    activation: str | None
    widths: list[Count]
    parameters: NotRequired[Count]


class CriticTraining(TypedDict):
    """Training of a critic, and its value on training batches."""

    complete: bool
    steps: Count
    seconds: Length
    value: Finite


class Interval(TypedDict):
    """Lower bound of a Wasserstein distance with its confidence interval."""

    value: Finite
    lower: Finite
    upper: Finite
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    interval: typing.Literal["t", "bernstein"]
    constant: Length
    rounding: Length | None
    samples: Annotated[list[Count], Meta(min_length=2, max_length=2)]


class Exact(TypedDict):
    """Exact distance of the held-out samples."""

    distance: Length
    seconds: Length
    solver: str | None


class TransportRecord(Record):
    """Record of ``onelip transport``."""

    transport: dict[str, Any]
    samples: NotRequired[Pair]
    critic: NotRequired[Critic]
    train: NotRequired[CriticTraining]
    result: NotRequired[Interval]
    exact: NotRequired[Exact]
    history: NotRequired[list[tuple[Count, Finite]]]
    truth: NotRequired[Length | None]
    truth_error: NotRequired[Length]


class Sizes(TypedDict):
    """Numbers of weights."""

    generator: Count
    critic: Count


class GameTraining(TypedDict):
    """Training of a generator and a critic."""

    complete: bool
    step: Count
    seconds: Length
    parameters: Sizes
    history: Annotated[list[tuple[Count, Finite]], Meta(min_length=1)]


class HeldOut(TypedDict):
    """Lower bounds proved on images that nothing was trained on."""

    split: str
    critic: Interval | None
    fresh_critic: Interval


class WGANRecord(Record):
    """Record of ``onelip wgan``."""

    wgan: dict[str, Any]
    data: NotRequired[Data]
    train: NotRequired[GameTraining]
    held_out: NotRequired[HeldOut]


_Kind = TypeVar("_Kind")


def parsed(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # Half a surrogate pair is valid JSON, but no text that could be written again.
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content if isinstance(content, dict) else {}


def checked(content: object, kind: type[_Kind]) -> _Kind:
    """Return the content itself, if it is of a type of this module.

    Raises:
        ValueError: it is something else; the message names the field.
    """
    converted(content, kind)
    return cast(_Kind, content)


def converted(content: object, kind: type[_Kind]) -> _Kind:
    """Convert the content to a type: an object to its dataclass, a list to its tuple.

    Raises:
        ValueError: it is something else; the message names the field.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def checked_arguments(function: Callable[..., Any], given: Mapping[str, Any], name: str) -> None:
    """Refuse keyword arguments that a function does not take, by its annotations.

    Raises:
        UsageError: an argument is unknown or of another type.
    """
    target: Any = getattr(function, "func", function)  # what a partial is of
    made_by = inspect.getattr_static(target, "__init__") if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(made_by)
    except Exception:  # of code that is not ours, whose names need not exist
        hints = {}
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key, value in given.items():
        if key not in parameters and not takes_any:
            raise UsageError(f"{name} cannot be built: got an unexpected keyword argument {key!r}")
        if isinstance(value, int) and abs(value) >= 2**31:
            raise UsageError(f"{name} cannot be built: {key} must be below 2^31")
        try:
            msgspec.convert(value, hints.get(key, Any))
        except msgspec.ValidationError as error:
            raise UsageError(f"{name} cannot be built: {key}: {_in_words(error)}") from None
        except TypeError:  # a type that no file can hold, such as a function
            continue


def _in_words(error: Exception) -> str:
    """Rephrase an error of msgspec for a person who reads JSON."""
    text = str(error).replace("`", "").replace("object", "JSON object").replace(" - at $.", " at ")
    return text[:1].lower() + text[1:]
