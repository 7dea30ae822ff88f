"""Linear MSE and label MSE as Metrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.linear_mse import (
    Variant,
    check_linear_mse_arguments,
    check_source_outputs,
    linear_mse_from_moments,
)
from lightning_transfer.functional.moments import TargetMoments
from lightning_transfer.metrics.moments import MomentMetric


class LinearMSE(MomentMetric):
    """Negative error of the best linear map of the features, streamed (Nguyen et al., UAI 2023); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``targets`` (:class:`~torch.Tensor`): shape ``(n,)`` or ``(n, m)``, any floating dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``linear_mse`` (:class:`~torch.Tensor`): 0-d float64, at most 0, in squared units of the targets, see
      :func:`lightning_transfer.functional.linear_mse`.

    Args:
        regularization: Lambda, not negative.
        variant: ``"paper"`` or ``"official"``.
        jackknife_groups: Number of partial sums for ``compute_with_interval``; 1 for none.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import LinearMSE
        >>> metric = LinearMSE()
        >>> metric.update(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 2.0, 4.0, 7.0]))
        >>> metric.compute()
        tensor(-0.0750, dtype=torch.float64)
    """

    plot_upper_bound: float = 0.0
    name = "linear_mse"
    title = "LinMSE"
    tasks = ("regression",)
    requires = ("features", "targets")

    def __init__(self, regularization: float = 0.0, variant: Variant = "paper", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_linear_mse_arguments(regularization, variant)
        self.regularization = regularization
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """Limits: at most 0."""
        return -float("inf"), 0.0

    @property
    def _unregularised(self) -> bool:
        return not self.regularization

    def _score(self, moments: TargetMoments) -> Tensor:
        return linear_mse_from_moments(moments, self.regularization, self.variant)


class LabelMSE(LinearMSE):
    """Linear MSE on the outputs of the source model (Nguyen et al., UAI 2023, definition 4.2); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``source_outputs`` (:class:`~torch.Tensor`): shape ``(n, s)`` or ``(n,)``, any floating dtype.
    - ``targets`` (:class:`~torch.Tensor`): shape ``(n,)`` or ``(n, m)``, any floating dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``label_mse`` (:class:`~torch.Tensor`): 0-d float64, at most 0, see
      :func:`lightning_transfer.functional.label_mse`.

    Args:
        regularization: Lambda, not negative.
        variant: ``"paper"`` or ``"official"``.
        jackknife_groups: Number of partial sums for ``compute_with_interval``; 1 for none.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import LabelMSE
        >>> metric = LabelMSE()
        >>> metric.update(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 4.0, 7.0]))
        >>> metric.compute()
        tensor(-0.0750, dtype=torch.float64)
    """

    requires = ("source_outputs", "targets")
    name = "label_mse"
    title = "LabMSE"

    def __init__(self, regularization: float = 0.0, variant: Variant = "paper", **kwargs: Any) -> None:
        super().__init__(regularization, variant, **kwargs)
        # A state of its own, so that no collection takes these moments of outputs for moments of features.
        self.add_state("of_outputs", self._zeros(1), dist_reduce_fx="max")

    def update(  # type: ignore[override]
        self, source_outputs: Tensor, targets: Tensor, groups: Tensor | None = None
    ) -> None:
        """Add a batch of source outputs and targets to the sums.

        Args:
            source_outputs: Shape ``(n, s)`` or ``(n,)``, any floating dtype.
            targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        super().update(check_source_outputs(source_outputs), targets=targets, groups=groups)
