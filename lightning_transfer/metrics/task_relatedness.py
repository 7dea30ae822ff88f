"""The task-relatedness bound as a Metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_transfer.functional.task_relatedness import check_given, task_relatedness
from lightning_transfer.metrics.base import Health, ScoreInterval, check_width
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.relatedness.certificate import VACUOUS
from lightning_transfer.relatedness.config import DATA, BoundConfig
from lightning_transfer.utilities.checks import check_features, check_in_interval, check_labels, shape_of_positions
from lightning_transfer.utilities.groups import check_groups, groups_of_positions

if TYPE_CHECKING:
    from lightning_transfer.relatedness.result import TaskRelatednessResult

_REFERENCE = ("reference_features", "reference_labels", "reference_groups")
_OPTIONS = frozenset((*(part.name for part in fields(BoundConfig)), *DATA, "max_samples")) - {
    "level", "reference_groups", "target_groups"
}  # fmt: skip
_NO_LABEL = -1


class TaskRelatedness(SampleMetric):
    """Upper bound of the loss that a reference task guarantees on the target, in nats; lower is better.

    Target batches are streamed with ``update``. The reference is handed in once with :meth:`set_reference`, or streamed
    with ``update(..., reference=True)``; ``reset`` keeps it. Batches of all ranks are put together, and the solver puts
    samples into an order of its own, so the value depends neither on batches nor on ranks.

    Args:
        config: How to bound; None for the defaults.
        keep_samples: Target samples kept at most (a seeded sample, see
            :class:`~lightning_transfer.metrics.samples.SampleMetric`); None for all. The bound is certified for these.
        seed: Seed of the sample and of the solver; by default that of ``config``.
        num_resamples: Bootstrap resamples of ``compute_with_interval``.
        ignore_index: Samples with this label are left out.
        kwargs: Fields of :class:`~lightning_transfer.relatedness.BoundConfig` on top of ``config``, the tensors that
            :func:`lightning_transfer.functional.task_relatedness` takes beside (``head``, ``label_map``,
            ``evaluation``, ``warm_start``, class names), and arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is unknown or has an impossible value.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.task_relatedness import TaskRelatedness
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 3
        >>> features = torch.eye(3)[labels] * 4 + torch.randn(60, 3, generator=generator)
        >>> metric = TaskRelatedness()
        >>> metric.set_reference(features, labels)
        >>> for start in (0, 20, 40):
        ...     metric.update(features[start : start + 20], labels[start : start + 20])
        >>> bool(metric.compute() < torch.tensor(3.0).log())
        True
    """

    name = "task_relatedness"
    title = "Task relatedness"
    needs_reference = True
    higher_is_better = False
    full_state_update = True
    kept_labels: list[Tensor]
    kept_reference_features: list[Tensor]
    kept_reference_labels: list[Tensor]
    kept_reference_groups: list[Tensor]
    fixed_reference_features: Tensor | None
    fixed_reference_labels: Tensor | None
    fixed_reference_groups: Tensor | None
    _reads_groups = True

    def __init__(
        self,
        *,
        config: BoundConfig | None = None,
        keep_samples: int | None = None,
        seed: int | None = None,
        num_resamples: int = 100,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = {name: kwargs.pop(name) for name in _OPTIONS & set(kwargs)}
        if seed is None:
            seed = config.seed if isinstance(config, BoundConfig) else 0
        super().__init__(
            keep_samples=keep_samples, seed=seed, num_resamples=num_resamples, ignore_index=ignore_index, **kwargs
        )
        self.data = {name: options.pop(name) for name in DATA if name in options}
        self.config = BoundConfig.of(config, {**options, "seed": seed, "num_resamples": 0})
        check_given(self.config, **self.data)
        self.result: TaskRelatednessResult | None = None
        for name in _REFERENCE:
            self.add_state(f"kept_{name}", [], dist_reduce_fx="cat")
            self.register_buffer(f"fixed_{name}", None, persistent=False)

    def set_reference(self, features: Tensor, labels: Tensor, groups: Tensor | None = None) -> None:
        """Fix the reference; on several ranks, hand the same one to all of them.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            labels: Class ids of shape ``(n,)``, any integer dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than the target.
        """
        features = check_features(features, "features")
        labels = check_labels(labels, len(features))
        check_width(super()._width, features)
        groups = None if groups is None else check_groups(groups, labels.shape)
        self.fixed_reference_groups = None if groups is None else groups.clone().to(self.device)
        self.fixed_reference_features = features.clone().to(self.device)
        self.fixed_reference_labels = labels.clone().to(self.device)
        self.kept_reference_features, self.kept_reference_labels, self.kept_reference_groups = [], [], []
        self._computed = None

    def update(  # type: ignore[override]
        self,
        features: Tensor,
        labels: Tensor | None = None,
        *,
        reference: bool = False,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype.
            labels: Class ids of shape ``(n,)``, any integer dtype; None in all target batches to find labels.
            reference: Whether the batch belongs to the reference.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, of another width than before, or only some target batches
                have labels, or the reference has been fixed already.
        """
        given = features, labels
        if labels is None:
            if reference:
                raise ValueError("Expected argument `labels` for a batch of the reference, but got None.")
            features = check_features(features)
            check_width(self._width, features)
            labels = torch.full((len(features),), _NO_LABEL, device=features.device)
        else:
            checked = self._checked(features, labels)
            if checked is None:
                return
            features, labels = checked
        if reference:
            if self.fixed_reference_features is not None:
                raise ValueError("Expected no batches of the reference after `set_reference`.")
            if self.kept_reference_labels and bool(self.kept_reference_groups) != (groups is not None):
                raise ValueError("Expected argument `groups` with every batch of the reference or with none.")
            ids = groups_of_positions(groups, *given, self.ignore_index)
            if ids is not None:
                self.kept_reference_groups.append(ids.clone())
            self.kept_reference_features.append(features.clone())
            self.kept_reference_labels.append(labels.clone())
            return
        if self.kept_labels and (int(self.kept_labels[0][0]) == _NO_LABEL) != (int(labels[0]) == _NO_LABEL):
            raise ValueError("Expected argument `labels` in all target batches or in none, but got it in some.")
        ids = self._check_groups(groups, shape_of_positions(given[0]), given[1])
        self._keep(ids, features=features, labels=labels)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the bound of that batch; nothing for a batch of the reference."""
        if kwargs.get("reference"):
            self.update(*args, **kwargs)
            return None
        return super().forward(*args, **kwargs)

    def reset(self) -> None:
        """Forget the target; the reference stays. See :meth:`reset_reference`."""
        kept = {f"kept_{name}": list(getattr(self, f"kept_{name}")) for name in _REFERENCE}
        super().reset()
        for name, parts in kept.items():
            setattr(self, name, parts)
        self.result = None

    def reset_reference(self) -> None:
        """Forget the reference."""
        self.kept_reference_features, self.kept_reference_labels, self.kept_reference_groups = [], [], []
        self.fixed_reference_features = self.fixed_reference_labels = self.fixed_reference_groups = None

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        for name in _REFERENCE:
            self._match_empty(f"kept_{name}", gather, group)
        super()._align_ranks(gather, group)

    def compute(self) -> Tensor:
        """Solve for the transforms and return the bound, 0-d float64; :attr:`result` holds all the rest."""
        return super().compute()

    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the bound with a bootstrap interval for fixed transforms.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            The bound, its standard error, and a normal interval around it.
        """
        check_in_interval(level, 0, 1, "level")
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            result = self._solve(**self._prepared(), num_resamples=self.num_resamples, level=level)
        assert result.standard_error is not None
        assert result.interval is not None
        return ScoreInterval(result.bound, result.standard_error, *result.interval, level, "bootstrap")

    def _examine(self) -> Health:
        kept = self._kept()
        labels = kept["labels"] if int(kept["labels"][0]) != _NO_LABEL else None
        counts = None if labels is None else torch.unique(labels, return_counts=True)[1]
        messages = [] if self.result is None else list(self.result.messages)
        if self.result is not None and self.result.certificate.vacuous:
            messages.append(VACUOUS)
        if int(self.seen) > len(kept["labels"]):
            messages.append(f"computed on a seeded sample of {len(kept['labels'])} of {int(self.seen)} target samples")
        return Health(
            num_samples=len(kept["features"]),
            num_features=kept["features"].shape[1],
            num_classes=None if counts is None else len(counts),
            smallest_class=None if counts is None else int(counts.min()),
            samples_per_feature=len(kept["features"]) / kept["features"].shape[1],
            converged=self.result is None or self.result.converged,
            messages=tuple(messages),
        )

    def score_range(self) -> tuple[float, float]:
        """A bound of a cross-entropy is not negative."""
        return 0.0, float("inf")

    def _score(self, **samples: Tensor) -> Tensor:
        self.result = self._solve(**samples)
        return torch.tensor(self.result.bound, dtype=torch.float64, device=self.device)

    def _solve(
        self, features: Tensor, labels: Tensor, groups: Tensor | None = None, **options: Any
    ) -> TaskRelatednessResult:
        reference = tuple(getattr(self, f"fixed_{name}") for name in _REFERENCE)
        if self.fixed_reference_features is None:
            reference = tuple(_joined(getattr(self, f"kept_{name}")) for name in _REFERENCE)
        if reference[0] is None or reference[1] is None:
            raise ValueError("Expected `set_reference` or `update(..., reference=True)` before `compute`.")
        truth = None if int(labels[0]) == _NO_LABEL else labels
        with torch.no_grad():
            return task_relatedness(
                reference[0],
                reference[1],
                features,
                truth,
                config=replace(self.config, **options),
                reference_groups=reference[2],
                target_groups=groups,
                **self.data,
            )

    @property
    def _width(self) -> int:
        parts = self.kept_reference_features
        streamed = parts if isinstance(parts, Tensor) else (parts[0] if parts else None)
        reference = self.fixed_reference_features if self.fixed_reference_features is not None else streamed
        return reference.shape[1] if reference is not None else super()._width


def _joined(parts: list[Tensor] | Tensor) -> Tensor | None:
    """One tensor of a list state, which is a tensor already after a sync."""
    if isinstance(parts, Tensor):
        return parts if len(parts) else None
    return torch.cat(parts) if parts else None
