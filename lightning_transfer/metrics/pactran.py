"""PACTran as a Metric, under each of its three priors."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_transfer.functional.pactran import (
    check_gauss_options,
    check_source_options,
    gaussian_score,
    pactran_dirichlet,
    pactran_gamma,
)
from lightning_transfer.metrics.base import TransferMetric, checked_batch
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_one_of


class _PACTran(SampleMetric):
    """What the priors share: the published code's variants are bounds, of which lower is better."""

    plot_legend_name: str = "PACTran"
    options: dict[str, Any]

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether the score is the negated bound."""
        return bool(self.options["variant"] == "paper")

    def score_range(self) -> tuple[float, float]:
        """A bound on a cross-entropy is not negative."""
        return (-float("inf"), 0.0) if self.higher_is_better else (0.0, float("inf"))


class _GaussPACTran(_PACTran):
    """PACTran with a Gaussian prior on a linear classifier."""

    def __init__(
        self,
        lambda_factor: float = 1.0,
        variance_factor: float = 10.0,
        max_iter: int = 200,
        variant: str = "paper",
        max_samples: int | None = 8000,
        **kwargs: Any,
    ) -> None:
        check_gauss_options(lambda_factor, variance_factor, max_iter, variant)
        super().__init__(max_samples=max_samples, **kwargs)
        self.options = {
            "lambda_factor": lambda_factor, "variance_factor": variance_factor, "max_iter": max_iter, "variant": variant
        }  # fmt: skip

    def _score(self, **samples: Tensor) -> Tensor:
        score, converged = gaussian_score(samples["features"], samples["labels"], **self.options)
        iterations = self.options["max_iter"]
        self._unconverged = (
            "" if converged else f"the classifier did not converge in {iterations} iterations (`max_iter`)"
        )
        return score


class _SourcePACTran(_PACTran):
    """PACTran with a prior on the label distribution of each source class."""

    requires = ("source_probs", "labels")

    def __init__(
        self, prior: str, alpha: float = 1.0, iterations: int = 10, variant: str = "paper", **kwargs: Any
    ) -> None:
        check_source_options(alpha, iterations, variant)
        super().__init__(**kwargs)
        self.prior = prior
        self.options = {"alpha": alpha, "iterations": iterations, "variant": variant}

    def update(self, source_probs: Tensor, labels: Tensor) -> None:
        """Add a batch of source probabilities and class ids to the samples.

        Args:
            source_probs: Shape ``(n, k)``, any floating dtype, rows on the simplex.
            labels: Class ids of shape ``(n,)``, any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = checked_batch(
            source_probs, labels, width=self._width, ignore_index=self.ignore_index, name="source_probs"
        )
        if checked is not None:
            self._keep(source_probs=checked[0], labels=checked[1])

    def score_range(self) -> tuple[float, float]:
        """A bound on a cross-entropy is not negative; with the Gamma prior it is one after convergence only."""
        return super().score_range() if self.prior == "dirichlet" else (-float("inf"), float("inf"))

    def _score(self, **samples: Tensor) -> Tensor:
        function = pactran_dirichlet if self.prior == "dirichlet" else pactran_gamma
        return function(samples["source_probs"], samples["labels"], **self.options)


class PACTran(TransferMetric):
    """Negated PAC-Bayes bound on the loss after transfer, on a seeded sample (Ding et al., 2022); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype; with the Gaussian prior.
    - ``source_probs`` (:class:`~torch.Tensor`), in place of features with the other priors: rows of probabilities of
      the source classes, shape ``(n, k)``.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``pactran`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.pactran`. With
      ``variant="official"`` the bound itself as the published code computes it: lower is better, and
      ``higher_is_better`` of the instance says so.

    Args:
        prior: ``"gauss"``, ``"dirichlet"`` or ``"gamma"``.
        kwargs: ``variant``; ``lambda_factor``, ``variance_factor`` and ``max_iter`` of the Gaussian prior, ``alpha``
            and ``iterations`` of the others; ``max_samples`` (8000 with the Gaussian prior), ``seed``,
            ``num_resamples`` and ``ignore_index`` of the sample; and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.pactran import PACTran
        >>> metric = PACTran()
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(-0.8377, dtype=torch.float64)
        >>> metric = PACTran("dirichlet")
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(-0.6795, dtype=torch.float64)
    """

    def __new__(cls, prior: Literal["gauss", "dirichlet", "gamma"] = "gauss", **kwargs: Any) -> Any:
        """Make an instance of the class for the prior."""
        check_one_of(prior, ("gauss", "dirichlet", "gamma"), "prior")
        return _GaussPACTran(**kwargs) if prior == "gauss" else _SourcePACTran(prior, **kwargs)


for _kind in (_GaussPACTran, _SourcePACTran):
    PACTran.register(_kind)
