"""EMMS as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.emms import check_embeddings, emms_from_moments
from lightning_transfer.functional.moments import ClassMoments, TargetMoments
from lightning_transfer.inputs import Task
from lightning_transfer.metrics.moments import MomentMetric
from lightning_transfer.utilities.checks import check_one_of


class EMMS(MomentMetric):
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
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``.
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

    name = "emms"
    title = "EMMS"
    tasks = ("classification", "multilabel", "regression")
    plot_upper_bound: float = 0.0

    def __init__(
        self, embeddings: Tensor | None = None, *, task: Task | None = None, variant: str = "paper", **kwargs: Any
    ) -> None:
        super().__init__(task, **kwargs)
        check_one_of(variant, ("paper", "official"), "variant")
        if embeddings is not None and self.task != "classification":
            raise ValueError(f"Expected argument `embeddings` with class ids only, but got it with task {task!r}.")
        self.embeddings = None if embeddings is None else check_embeddings(embeddings)
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """At most 0."""
        return -float("inf"), 0.0

    @property
    def _unregularised(self) -> bool:
        return True

    def _score(self, moments: ClassMoments | TargetMoments) -> Tensor:
        return emms_from_moments(moments, self.embeddings, variant=self.variant)
