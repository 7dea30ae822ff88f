"""EMMS as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.emms import check_embeddings, emms_from_moments
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.metrics.moments import ClassMomentMetric
from lightning_transfer.utilities.checks import check_one_of


class EMMS(ClassMomentMetric):
    """Regression on embeddings of the classes, streamed exactly (Meng et al., NeurIPS 2023); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype, that index ``embeddings``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``emms`` (:class:`~torch.Tensor`): 0-d float64, at most 0, see :func:`lightning_transfer.functional.emms`.

    Embeddings of each sample, not of its class (captions, say), are for the function.

    Args:
        embeddings: Vectors of the classes from k models, shape ``(classes, l, k)`` or ``(classes, l)``; None for
            one-hot.
        variant: ``"paper"`` or ``"official"`` (larger by the width squared).
        kwargs: ``num_classes``, ``jackknife_groups``, ``ignore_index``, and keyword arguments of
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

    plot_upper_bound: float = 0.0
    plot_legend_name: str = "EMMS"

    def __init__(self, embeddings: Tensor | None = None, *, variant: str = "paper", **kwargs: Any) -> None:
        check_one_of(variant, ("paper", "official"), "variant")
        super().__init__(**kwargs)
        self.embeddings = None if embeddings is None else check_embeddings(embeddings)
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """At most 0."""
        return -float("inf"), 0.0

    @property
    def _unregularised(self) -> bool:
        return True

    def _score(self, moments: ClassMoments) -> Tensor:
        return emms_from_moments(moments, self.embeddings, variant=self.variant)
