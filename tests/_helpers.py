"""The table of estimators that the shared tests run over.

A new estimator gets every test of ``metrics/test_every_estimator.py`` by being listed: add an :class:`Estimator` to
``ROWS`` in a file of ``tests/_estimators/``. A row names the function and the Metric, the inputs that both take, the
range of the score and the invariances that its formula has; see the fields below.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from _reference.golden import CLASSIFICATION, REGRESSION, golden_inputs, golden_values
from torch import Tensor

from lightning_transfer.metrics.base import ScoreInterval

Inputs = dict[str, Tensor]

#: What a formula may be invariant to. Order of samples, split into batches and ranks, numbering of classes and gaps
#: between class ids are asked of every estimator and are not listed.
INVARIANCES = frozenset(
    {
        "shift",  # features + constant vector
        "scale",  # features * constant
        "rotation",  # features @ orthogonal matrix
        "affine",  # features @ invertible matrix + constant vector
        "repeat",  # every sample twice
    }
)


@dataclass(frozen=True)
class Golden:
    """Values of public code that an estimator has to give, see ``_reference/golden.py``.

    Attributes:
        key: Name of the value in ``_fixtures/golden.json``.
        absolute: Absolute tolerance.
        relative: Relative tolerance.
        factor: What our score is multiplied with before the comparison, from the number of samples.
        without: Cases where the public code is wrong.
    """

    key: str
    absolute: float = 0.0
    relative: float = 0.0
    factor: Callable[[int], float] = lambda n: 1.0
    without: tuple[str, ...] = ()

    def cases(self) -> list[str]:
        """Names of the cases that have a value to compare with."""
        return [
            case
            for case in (*CLASSIFICATION, *REGRESSION)
            if self.key in golden_values(case) and case not in self.without
        ]

    def check(self, value: Tensor, case: str) -> None:
        """Assert that a score agrees with the value of a case."""
        expected = golden_values(case)[self.key]
        n = len(golden_inputs(case)["features"])
        assert float(value) * self.factor(n) == pytest.approx(expected, abs=self.absolute, rel=self.relative), case


@dataclass(frozen=True)
class Estimator:
    """One row of the table.

    Attributes:
        name: Name of the score, as in the registry.
        function: The pure function.
        metric: The Metric class.
        inputs: Keyword names that ``function`` and ``metric.update`` take, among those of :func:`make_inputs`.
        arguments: Options that both take.
        metric_arguments: Options that the Metric alone takes.
        bounds: Range of the score, from the inputs; values may touch the ends to rounding.
        invariances: A subset of :data:`INVARIANCES`.
        tolerance: Relative tolerance between ways to compute the same score in float64.
        dtype_tolerance: Relative tolerance between half or single precision inputs and the same values in float64.
        one_class: ``"refused"`` with a ValueError, or ``"defined"``.
        class_order_matters: Whether ties go to the smallest class id, so that only the order of the ids may not change.
        reads_targets: Whether the function takes class ids and regression targets in the same argument ``labels``.
        golden: Values of public code.
        prepare: Makes the inputs out of those of :func:`make_inputs`, where a selection by name is not enough.
    """

    name: str
    function: Callable[..., Tensor]
    metric: Callable[..., Any]
    inputs: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    metric_arguments: dict[str, Any] = field(default_factory=dict)
    bounds: Callable[[Inputs], tuple[float, float]] = lambda inputs: (-math.inf, math.inf)
    invariances: frozenset[str] = frozenset()
    tolerance: float = 1e-10
    dtype_tolerance: float = 1e-6
    one_class: str = "refused"
    class_order_matters: bool = False
    reads_targets: bool = False
    golden: Golden | None = None
    prepare: Callable[[Inputs], Inputs] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.invariances) - INVARIANCES
        assert not unknown, f"{self.name}: unknown invariances {unknown}"
        assert self.one_class in ("refused", "defined")

    def make(self, seed: int = 0, **options: Any) -> Inputs:
        """Inputs of this estimator."""
        everything = make_inputs(seed, **options)
        if self.prepare is not None:
            everything = self.prepare(everything)
        return {name: everything[name] for name in self.inputs}

    def make_golden(self, case: str) -> Inputs:
        """Inputs of a golden case."""
        return {name: golden_inputs(case)[name] for name in self.inputs}

    def score(self, inputs: Inputs) -> Tensor:
        """The value of the function."""
        return self.function(**inputs, **self.arguments)

    def new_metric(self, **options: Any) -> Any:
        """A fresh Metric."""
        return self.metric(**{**self.arguments, **self.metric_arguments, **options})


def make_inputs(seed: int = 0, n: int = 110, d: int = 6, classes: int = 4, source_classes: int = 5) -> Inputs:
    """Every kind of input for the same ``n`` samples, in float64 and int64, every class present."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(classes, (n,), generator=generator)
    labels[:classes] = torch.arange(classes)
    features = 1.3 * normal(classes, d)[labels] + torch.linspace(0.4, 1.6, d, dtype=torch.float64) * normal(n, d) + 0.5
    source_probs = torch.softmax(1.5 * features @ normal(d, source_classes), dim=1)
    return {
        "features": features,
        "labels": labels,
        "source_probs": source_probs,
        "source_labels": source_probs.argmax(dim=1),
        "targets": features @ normal(d, 2) + 0.5 * normal(n, 2),
        "source_outputs": features @ normal(d, 3) + 0.2 * normal(n, 3),
    }


def rows(inputs: Inputs, index: Tensor | slice) -> Inputs:
    """Some of the samples."""
    return {name: values[index] for name, values in inputs.items()}


def feed(metric: Any, inputs: Inputs, sizes: list[int] | None = None) -> Any:
    """Update a metric batch by batch; ``sizes`` are the sizes of the batches, the rest comes last."""
    n = len(next(iter(inputs.values())))
    start = 0
    for size in [*(sizes or []), n]:
        stop = min(n, start + size)
        if stop > start:
            metric.update(**rows(inputs, slice(start, stop)))
        start = stop
    return metric


def assert_intervals_cover(
    metric: Callable[[], Any], draw: Callable[[torch.Generator], Inputs], value: float
) -> list[ScoreInterval]:
    """Assert that 90 to 98 % of the 95 % intervals of 200 seeded draws hold a value, and return the intervals.

    Args:
        metric: Makes a fresh Metric.
        draw: Makes the inputs of one draw.
        value: What the intervals should cover.
    """
    generator = torch.Generator().manual_seed(0)
    intervals = [feed(metric(), draw(generator)).compute_with_interval(level=0.95) for _ in range(200)]
    covered = sum(interval.lower <= value <= interval.upper for interval in intervals)
    assert 0.90 <= covered / 200 <= 0.98
    return intervals


def load_estimators() -> list[Estimator]:
    """Every row of every file in ``tests/_estimators``."""
    found: list[Estimator] = []
    for path in sorted((Path(__file__).parent / "_estimators").glob("[a-z]*.py")):
        found += importlib.import_module(f"_estimators.{path.stem}").ROWS
    names = [row.name for row in found]
    assert len(set(names)) == len(names), f"listed twice: {names}"
    return found


def _ddp_worker(rank: int, splits: list[int], folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    values: dict[tuple[str, int | str], Tensor] = {}
    for row in load_estimators():
        for case in row.golden.cases() if row.golden else []:
            # every third sample belongs to rank 0
            inputs = row.make_golden(case)
            mine = (torch.arange(len(inputs[row.inputs[0]])) % 3 == 0) == (rank == 0)
            values[row.name, case] = feed(row.new_metric(), rows(inputs, mine), [100]).compute()
        inputs = row.make()
        n = len(inputs[row.inputs[0]])
        for case, stop in enumerate(splits):
            share = rows(inputs, slice(0, stop) if rank == 0 else slice(stop, n))
            metric = row.new_metric()
            if len(share[row.inputs[0]]):
                feed(metric, share, [17, 3])
            values[row.name, case] = metric.compute()
            # the local states are back after the sync: going on and computing again stays right
            metric.update(**rows(inputs, slice(0, 30)))
            values[row.name + " continued", case] = metric.compute()
    torch.save(values, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def run_two_processes(splits: list[int], folder: str) -> list[dict[tuple[str, int | str], Tensor]]:
    """Compute every estimator on two gloo processes.

    Args:
        splits: For each case the number of samples of rank 0; rank 1 gets the rest.
        folder: An empty folder for the rendezvous and the results.

    Returns:
        For each rank the value of each ``(name, case)``; of ``(name + " continued", case)`` after both ranks have seen
        the first 30 samples once more; and of ``(name, golden case)``.
    """
    torch.multiprocessing.spawn(_ddp_worker, args=(splits, folder), nprocs=2, join=True)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in range(2)]
