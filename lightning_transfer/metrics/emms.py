"""EMMS as a Metric."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_transfer.functional.emms import check_embeddings, emms_from_moments
from lightning_transfer.functional.moments import ClassMoments, TargetMoments
from lightning_transfer.metrics.base import TransferMetric
from lightning_transfer.metrics.jackknife import JackknifeMetric
from lightning_transfer.metrics.moments import ClassMomentMetric, MultilabelMomentMetric, TargetMomentMetric
from lightning_transfer.utilities.checks import check_one_of


class _EMMS(JackknifeMetric):
    """What the tasks share."""

    plot_upper_bound: float = 0.0
    plot_legend_name: str = "EMMS"

    def __init__(self, variant: str, embeddings: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embeddings = None if embeddings is None else check_embeddings(embeddings)
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """At most 0."""
        return -float("inf"), 0.0

    @property
    def _unregularised(self) -> bool:
        return True

    def _score(self, totals: ClassMoments | TargetMoments) -> Tensor:
        return emms_from_moments(totals, self.embeddings, variant=self.variant)


class _ClassEMMS(_EMMS, ClassMomentMetric):
    """EMMS of class ids."""


class _MultilabelEMMS(_EMMS, MultilabelMomentMetric):
    """EMMS of 0/1 columns, which are their own embedding."""


class _TargetEMMS(_EMMS, TargetMomentMetric):
    """EMMS of regression targets, which are their own embedding."""


_CLASSES: dict[str, type[Any]] = {
    "classification": _ClassEMMS,
    "multilabel": _MultilabelEMMS,
    "regression": _TargetEMMS,
}


class EMMS(TransferMetric):
    """Regression on embeddings of the classes, streamed exactly (Meng et al., NeurIPS 2023); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)`` that index ``embeddings``; with ``task="multilabel"``
      zeros and ones ``(n, l)``.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``emms`` (:class:`~torch.Tensor`): 0-d float64, at most 0, see :func:`lightning_transfer.functional.emms`.

    Attributes and targets are their own embedding. Several embeddings of each sample, not of its class (captions, say),
    are for the function.

    Args:
        embeddings: Vectors of the classes from k models, shape ``(classes, l, k)`` or ``(classes, l)``; None for
            one-hot.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; the instance is of the class for the task.
        variant: ``"paper"`` or ``"official"`` (larger by the width squared).
        kwargs: ``num_classes``, ``ignore_index`` (classification), ``jackknife_groups``, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen or a class lacks an
            embedding.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.emms import EMMS
        >>> metric = EMMS()
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(-0.0094, dtype=torch.float64)
    """

    def __new__(
        cls,
        embeddings: Tensor | None = None,
        *,
        task: Literal["classification", "multilabel", "regression"] = "classification",
        variant: str = "paper",
        **kwargs: Any,
    ) -> Any:
        """Make an instance of the class for the task."""
        check_one_of(task, tuple(_CLASSES), "task")
        check_one_of(variant, ("paper", "official"), "variant")
        if embeddings is not None and task != "classification":
            raise ValueError(f"Expected argument `embeddings` with class ids only, but got it with task {task!r}.")
        return _CLASSES[task](variant, embeddings, **kwargs)


for _task_class in _CLASSES.values():
    EMMS.register(_task_class)
