"""One line of a leaderboard: a backbone, its scores, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_transfer.utilities.errors import Failure

_OK = "ok"
_WHOLE = ("parameters", "flops", "feature_dim")
BOUND_NUMBERS = (
    "bound", "reweighted_reference_loss", "label_mismatch", "distribution_mismatch", "target_loss", "target_accuracy",
    "guessing",
)  # fmt: skip
_MORE_NUMBERS = ("population_bound", "confidence")
_BOUND_NAMES = ("reference_class_names", "target_class_names")
COSTS = ("parameters", "flops", "feature_dim", "images_per_second", "seconds")


@dataclass(frozen=True)
class Row:
    """One backbone of a leaderboard.

    Attributes:
        backbone: Its name, unique on the leaderboard.
        scores: Score by column name; NaN (or absent) where a score could not be computed.
        standard_errors: Standard error by column name, where known.
        parameters: Number of parameters.
        flops: Floating point operations of one forward pass of one sample.
        feature_dim: Width of the features.
        images_per_second: Measured speed of the extraction.
        seconds: Time from building the backbone to its last score.
        status: ``"ok"`` or in one line what went wrong; by default what ``failure`` says.
        failure: The exception that ended the backbone, if one did.
        remarks: What the scores' health records say, in words.
        parts: Raw parts, by column, of scores that exist only relative to the other backbones.
        fingerprint: Name of the weights and the preprocessing that were screened; empty where not known.
        control: Whether the weights are random: what scores without any training.
        bound: What the task-relatedness bound is made of, where there is one: its terms and the loss that it bounds in
            nats, the label map and the names of the classes, as in ``relatedness.json``; where they were asked for the
            ``baseline``, and ``population_bound`` with the ``confidence`` of this row alone.
        cached: Whether features came from the cache: ``images_per_second`` and ``seconds`` are then what was measured
            when they were put there.
        layer: The layer that was scored; empty where it is the backbone's own features.
    """

    backbone: str
    scores: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None
    feature_dim: int | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    status: str = ""
    remarks: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fingerprint: str = ""
    failure: Failure | None = None
    control: bool = False
    bound: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False
    layer: str = ""

    def __post_init__(self) -> None:
        if not self.status:
            object.__setattr__(self, "status", _OK if self.failure is None else str(self.failure))

    def score(self, column: str) -> float:
        """The score in a column, NaN where there is none."""
        return float(self.scores.get(column, math.nan))

    def standard_error(self, column: str) -> float:
        """The standard error of a score, NaN where it is not known."""
        return float(self.standard_errors.get(column, math.nan))

    @property
    def network(self) -> str:
        """Name of the backbone without that of the layer."""
        return self.backbone.removesuffix(f":{self.layer}") if self.layer else self.backbone

    @property
    def failed(self) -> bool:
        """Whether the status says that something went wrong."""
        return self.status != _OK

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values; a number that is not finite becomes None."""
        record = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("scores", "standard_errors"):
            record[name] = {key: _or_none(value) for key, value in record[name].items()}
        record["parts"] = {column: dict(parts) for column, parts in self.parts.items()}
        record["remarks"] = list(self.remarks)
        record["bound"] = dict(self.bound)
        record["failure"] = None if self.failure is None else vars(self.failure).copy()
        return record | {name: _or_none(record[name]) for name in COSTS}

    @classmethod
    def from_dict(cls, record: Any) -> Row:
        """Read what :meth:`to_dict` gave, now or in an earlier version; nothing in it is executed.

        Args:
            record: Plain JSON values.

        Raises:
            ValueError: If a name is unknown or missing, or a value has the wrong type.
        """
        if not isinstance(record, dict) or set(record) - {item.name for item in fields(cls)}:
            raise ValueError(f"Expected a row to hold {[item.name for item in fields(cls)]}, but got {record!r}.")
        for name in ("backbone", "status", "fingerprint"):
            expect(record, name, str)
        for name in COSTS:
            value = record.get(name)
            if value is not None and (not _is_number(value) or (name in _WHOLE and not _is_count(value))):
                raise ValueError(f"Expected `{name}` to be a number, but got {value!r}.")
        numbers = {name: _read_numbers(expect(record, name, dict), name) for name in ("scores", "standard_errors")}
        parts = {name: _read_numbers(value, "parts") for name, value in expect(record, "parts", dict).items()}
        remarks = expect(record, "remarks", list)
        if not all(isinstance(remark, str) for remark in remarks):
            raise ValueError(f"Expected `remarks` to hold strings, but got {remarks!r}.")
        failure = record.get("failure")
        if failure is not None:
            if not isinstance(failure, dict):
                raise ValueError(f"Expected `failure` to be a dict, but got {failure!r}.")
            failure = Failure(expect(failure, "kind", str), expect(failure, "message", str))
        expect({"layer": "", **record}, "layer", str)
        control = expect({"control": record["backbone"].endswith("_random"), **record}, "control", bool)
        cached = expect({"cached": False, **record}, "cached", bool)
        bound = _read_bound(record.get("bound") or {})
        return cls(**{**record, **numbers, "remarks": tuple(remarks), "parts": parts, "failure": failure,
                      "control": control, "bound": bound, "cached": cached})  # fmt: skip


def expect(record: Mapping[str, Any], name: str, kind: type) -> Any:
    """An entry of a record, of a type.

    Raises:
        ValueError: If it is missing or of another type.
    """
    if not isinstance(record.get(name), kind):
        raise ValueError(f"Expected `{name}` to be a {kind.__name__}, but got {record.get(name)!r}.")
    return record[name]


def _or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _read_numbers(values: Any, name: str) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ValueError(f"Expected `{name}` to hold numbers, but got {values!r}.")
    for value in values.values():
        if value is not None and not _is_number(value):
            raise ValueError(f"Expected `{name}` to hold numbers, but got {value!r}.")
    return {key: math.nan if value is None else float(value) for key, value in values.items()}


def _read_bound(record: Any) -> dict[str, Any]:
    """The parts of a bound, or nothing.

    Raises:
        ValueError: If one is missing or of another type.
    """
    if record == {}:
        return {}
    if not isinstance(record, dict) or not all(_is_number(record.get(name)) for name in BOUND_NUMBERS):
        raise ValueError(f"Expected `bound` to hold the numbers {BOUND_NUMBERS}, but got {record!r}.")
    matrix = expect({"label_map": [], **record}, "label_map", list)
    if not all(isinstance(row, list) and len(row) == len(matrix[0]) and all(map(_is_number, row)) for row in matrix):
        raise ValueError(f"Expected `label_map` to hold rows of numbers, but got {matrix!r}.")
    names = {name: expect({name: [], **record}, name, list) for name in _BOUND_NAMES}
    if not all(isinstance(text, str) for texts in names.values() for text in texts):
        raise ValueError(f"Expected names of classes to be strings, but got {names!r}.")
    more: dict[str, Any] = {}
    for name in _MORE_NUMBERS:
        if name in record:
            if not _is_number(record[name]):
                raise ValueError(f"Expected `{name}` to be a number, but got {record[name]!r}.")
            more[name] = float(record[name])
    if "baseline" in record:
        baseline = expect(record, "baseline", dict)
        copies = expect(baseline, "copies", list)
        if not copies or not all(map(_is_number, [*copies, baseline.get("bound")])):
            raise ValueError(f"Expected `baseline` to hold a bound and those of copies, but got {baseline!r}.")
        expect({"feature_map": "", **baseline}, "feature_map", str)
        more["baseline"] = baseline
    return {**{name: float(record[name]) for name in BOUND_NUMBERS}, "label_map": matrix, **names, **more}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: float) -> bool:
    return 0 <= value < 2**63 and value == int(value)
