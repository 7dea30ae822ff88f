"""PACTran as a Metric, under each of its three priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from lightning_transfer.functional.pactran import (
    check_gauss_options,
    check_source_options,
    gaussian_score,
    pactran_dirichlet,
    pactran_gamma,
    unconverged,
)
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_one_of, shape_of_positions

_DEFAULTS: dict[str, Any] = {
    "lambda_factor": 1.0, "variance_factor": 10.0, "max_iter": 200, "alpha": 1.0, "iterations": 10
}  # fmt: skip
_KEEP_SAMPLES = 8000  # of the Gaussian prior, whose classifier is fitted


class PACTran(SampleMetric):
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
        variant: ``"paper"`` or ``"official"``.
        lambda_factor: Of the Gaussian prior, see the function; None for its default.
        variance_factor: The same.
        max_iter: The same.
        alpha: Of the other priors, see :func:`lightning_transfer.functional.pactran_dirichlet`; None for its default.
        iterations: The same.
        kwargs: ``keep_samples`` (8000 with the Gaussian prior), ``seed``,
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

    name = "pactran"
    title = "PACTran"

    def __init__(
        self,
        prior: Literal["gauss", "dirichlet", "gamma"] = "gauss",
        *,
        variant: str = "paper",
        lambda_factor: float | None = None,
        variance_factor: float | None = None,
        max_iter: int | None = None,
        alpha: float | None = None,
        iterations: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_one_of(prior, ("gauss", "dirichlet", "gamma"), "prior")
        gauss = {"lambda_factor": lambda_factor, "variance_factor": variance_factor, "max_iter": max_iter}
        source = {"alpha": alpha, "iterations": iterations}
        mine, other = (gauss, source) if prior == "gauss" else (source, gauss)
        for name, value in other.items():
            if value is not None:
                raise ValueError(f"Expected no argument `{name}` with prior {prior!r}, but got {value!r}.")
        if prior == "gauss":
            if "max_samples" not in kwargs:  # the old name
                kwargs.setdefault("keep_samples", _KEEP_SAMPLES)
        else:
            self.requires = ("source_probs", "labels")
            self.name, self.title = f"pactran_{prior}", f"PACTran ({prior.capitalize()})"
        self.prior = prior
        self._bias_counts = prior != "gauss"  # what the bound pays for its counts falls with the samples
        self.options: dict[str, Any] = {
            name: _DEFAULTS[name] if value is None else value for name, value in mine.items()
        }
        self.options["variant"] = variant
        check: Callable[..., None] = check_gauss_options if prior == "gauss" else check_source_options
        check(**self.options)
        super().__init__(**kwargs)

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether the score is the negated bound, as it is but for the published code's variants."""
        return bool(self.options["variant"] == "paper")

    def update(
        self,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        source_probs: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch to the samples.

        Args:
            features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; read
                with the Gaussian prior. With the others the first argument may be ``source_probs``.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype.
            source_probs: Rows of probabilities, shape ``(n, k)``, any floating dtype; read with the other priors.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        values = features if self.prior == "gauss" or source_probs is None else source_probs
        if values is None:
            raise ValueError(f"Expected argument `{self.requires[0]}` with every batch, but got None.")
        checked = self._checked(values, labels)
        if checked is not None:
            self._keep_checked(checked, self._check_groups(groups, shape_of_positions(values), labels))

    def score_range(self) -> tuple[float, float]:
        """A bound on a cross-entropy is not negative; with the Gamma prior it is one after convergence only."""
        if self.prior == "gamma":
            return super().score_range()
        return (-float("inf"), 0.0) if self.higher_is_better else (0.0, float("inf"))

    def _score(self, **samples: Any) -> Tensor:
        if self.prior != "gauss":
            function: Callable[..., Tensor] = pactran_dirichlet if self.prior == "dirichlet" else pactran_gamma
            return function(**samples, **self.options)
        score, converged = gaussian_score(**samples, **self.options)
        iterations = self.options["max_iter"]
        self._unconverged = "" if converged else unconverged(iterations)
        return score
