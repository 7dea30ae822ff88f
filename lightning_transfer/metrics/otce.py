"""OTCE as a Metric."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from lightning_transfer.functional.otce import (
    TransportedReference,
    Weights,
    check_otce_options,
    check_reference,
    score_from_transport,
    transport_reference,
)
from lightning_transfer.functional.task_hardness import task_hardness
from lightning_transfer.metrics.base import check_width
from lightning_transfer.metrics.samples import SampleMetric, choose_rows
from lightning_transfer.utilities.renames import renamed


class OTCE(SampleMetric):
    """OTCE, F-OTCE or JC-NCE of a fixed reference and a streamed target (Tan et al., CVPR 2021); higher is better.

    Both sides are bounded, seeded samples: exact transport between 1000 and 1000 samples takes a fraction of a second.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): target features of shape ``(n, d)``, any floating dtype (tokens
      ``(b, t, d)`` and pixels ``(b, d, h, w)`` too).
    - ``labels`` (:class:`~torch.Tensor`): target class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``otce`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.otce`.

    The reference survives ``reset``. In distributed runs every rank is given the same one. The interval of
    ``compute_with_interval`` resamples target samples under the one transport plan.

    Args:
        reference_features: Reference features of the same model, shape ``(m, d)``; or call :meth:`set_reference`.
        reference_labels: Their class ids, shape ``(m,)``.
        label_weight: Share of the distance between classes in the cost; 0.5 for JC-NCE.
        weights: Weights of transport cost and conditional entropy, and the constant, for OTCE; None for F-OTCE.
        keep_samples: Samples kept at most on each side; None for all.
        kwargs: ``seed``, ``num_resamples``, ``ignore_index``, and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` there is no reference or fewer than two classes were
            seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import OTCE
        >>> metric = OTCE(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([0, 0, 1, 1]))
        >>> metric.update(torch.tensor([[0.5], [1.5], [8.0], [11.0]]), torch.tensor([1, 0, 0, 0]))
        >>> metric.compute()
        tensor(-0.3466, dtype=torch.float64)
    """

    name = "otce"
    title = "OTCE"
    needs_reference = True

    @renamed(source_features="reference_features", source_labels="reference_labels")
    def __init__(
        self,
        reference_features: Tensor | None = None,
        reference_labels: Tensor | None = None,
        *,
        label_weight: float = 0.0,
        weights: Weights | None = None,
        keep_samples: int | None = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(keep_samples=keep_samples, **kwargs)
        self.weights = check_otce_options(label_weight, weights)
        self.label_weight = label_weight
        self._reference: tuple[Tensor, Tensor] | None = None
        if (reference_features is None) != (reference_labels is None):
            raise ValueError(
                "Expected arguments `reference_features` and `reference_labels` together, but got one of them."
            )
        if reference_features is not None and reference_labels is not None:
            self.set_reference(reference_features, reference_labels)

    def set_reference(self, features: Tensor, labels: Tensor) -> None:
        """Fix the reference; beyond ``keep_samples`` a seeded sample of it is used.

        Args:
            features: Shape ``(m, d)``, any floating dtype.
            labels: Class ids, shape ``(m,)``, any integer dtype.

        Raises:
            ValueError: If an input is malformed.
        """
        features, labels = check_reference(features, labels)
        check_width(self._width, features, "reference_features")
        chosen = choose_rows([features, labels], self.seed, self.keep_samples)
        self._reference = features[chosen], labels[chosen]
        self._computed = None

    def set_source(self, features: Tensor, labels: Tensor) -> None:
        """Old name of :meth:`set_reference`."""
        warnings.warn("`OTCE.set_source` is called `set_reference` now.", FutureWarning, stacklevel=2)
        self.set_reference(features, labels)

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-H(Y), 0]`` of F-OTCE and JC-NCE; none with weights."""
        if self.weights != check_otce_options(self.label_weight, None):
            return super().score_range()
        return -float(task_hardness(self._kept()["labels"])), 0.0

    def _prepare(self, **samples: Tensor) -> dict[str, Tensor]:
        if self._reference is None:
            raise ValueError("Expected `set_reference` to be called before `compute` of OTCE.")
        return transport_reference(*self._reference, **samples, label_weight=self.label_weight)._asdict()

    def _score(self, **transported: Tensor) -> Tensor:
        return score_from_transport(TransportedReference(**transported), self.weights)
