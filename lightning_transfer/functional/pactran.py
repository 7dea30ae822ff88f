"""PACTran: optimal PAC-Bayes bounds on the loss after transfer, under Gaussian, Dirichlet and Gamma priors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional.counts import require_two_classes
from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_labels,
    check_one_of,
    check_positive_int,
    check_probabilities,
    flatten_positions,
)

_TINY = 1e-10  # keeps logarithms finite, as in the published code
_SLOPE = 1e-7  # largest entry of the gradient at which the fit of the classifier ends


def pactran(
    features: Tensor,
    labels: Tensor,
    *,
    lambda_factor: float = 1.0,
    variance_factor: float = 10.0,
    max_iter: int = 200,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute PACTran with a Gaussian prior (Ding et al., ECCV 2022).

    A linear classifier on the centred features is fitted to
    :math:`\hat L(W, b) + |W|^2 / (2 L)` with the mean cross-entropy :math:`\hat L` and :math:`L = \lambda n`; then the
    best Gaussian posterior about it has the bound

    .. math::
        \min_{W, b} + \frac{d c\, \sigma_0^2}{2 L} \log\Big(1 + \frac{L}{d c} \operatorname{tr} \nabla_W^2 \hat L\Big),
        \qquad \sigma_0^2 = v / d .

    The score is minus the bound, so that higher is better. The published code returns the bound itself (lower is
    better) and takes the Hessian of the summed, not the mean, loss, over the biases too: ``"official"``. Both are
    invariant under rotation and translation of the features.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64, never changed.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        lambda_factor: :math:`\lambda`, larger than 0; the paper searches 0.1, 1 and 10.
        variance_factor: ``v``, larger than 0; the paper searches powers of ten from 0.1 to 1000.
        max_iter: Iterations of L-BFGS.
        variant: ``"paper"`` (higher is better) or ``"official"`` (lower is better).
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.pactran import pactran
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> pactran(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.8377, dtype=torch.float64)
    """
    return gaussian_score(
        *flatten_positions(features, labels, ignore_index),
        lambda_factor=lambda_factor,
        variance_factor=variance_factor,
        max_iter=max_iter,
        variant=variant,
    )[0]


def gaussian_score(
    features: Tensor, labels: Tensor, *, lambda_factor: float, variance_factor: float, max_iter: int, variant: str
) -> tuple[Tensor, bool]:
    """Compute :func:`pactran`, and whether the fit of the classifier converged."""
    check_gauss_options(lambda_factor, variance_factor, max_iter, variant)
    data = labelled_rows(features, labels, rotate=True)
    n, size = len(data.rows), data.num_features * len(data.counts)
    penalty = lambda_factor * n
    optimum, probabilities, converged = _fit_softmax(data, penalty, max_iter)
    spread = (probabilities * (1 - probabilities)).sum(1)
    squares = data.rows.square().sum(1)
    curvature = squares @ spread / n if variant == "paper" else (squares + 1) @ spread
    complexity = size / penalty * variance_factor / data.num_features / 2
    bound = optimum + complexity * (curvature * penalty / size).log1p()
    return (-bound if variant == "paper" else bound), converged


def check_gauss_options(lambda_factor: float, variance_factor: float, max_iter: int, variant: str) -> None:
    """Check the options of :func:`pactran`.

    Raises:
        ValueError: If one is malformed.
    """
    check_one_of(variant, ("paper", "official"), "variant")
    check_in_interval(lambda_factor, 1e-12, 1e12, "lambda_factor")
    check_in_interval(variance_factor, 1e-12, 1e12, "variance_factor")
    check_positive_int(max_iter, "max_iter")


def check_source_options(alpha: float, iterations: int, variant: str) -> None:
    """Check the options of :func:`pactran_dirichlet` and :func:`pactran_gamma`.

    Raises:
        ValueError: If one is malformed.
    """
    check_one_of(variant, ("paper", "official"), "variant")
    check_in_interval(alpha, 1e-12, 1e12, "alpha")
    check_positive_int(iterations, "iterations")


def pactran_dirichlet(
    source_probs: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    iterations: int = 10,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute PACTran with a Dirichlet prior on the label distribution of each source class (Ding et al., ECCV 2022).

    The variational bound on the mean negative log-likelihood of the labels, given the source probabilities, with prior
    counts :math:`\alpha\, n_y / n`. The score is minus the bound, at most 0. The published code returns the bound
    (lower is better) divided by the number of classes, since it counts the entries of the one-hot labels:
    ``"official"``.

    Args:
        source_probs: Shape ``(n, k)`` (tokens ``(b, t, k)`` and pixels ``(b, k, h, w)`` too), any floating dtype, rows
            on the simplex.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        alpha: Total prior count of each source class, larger than 0.
        iterations: Variational updates.
        variant: ``"paper"`` (higher is better) or ``"official"`` (lower is better).
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor, in nats.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.pactran import pactran_dirichlet
        >>> pactran_dirichlet(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        tensor(-0.6795, dtype=torch.float64)
    """
    source_probs, labels = flatten_positions(source_probs, labels, ignore_index)
    fit = _fit_source_classes(source_probs, labels, alpha, iterations, variant, normalised=True)
    evidence = fit.num_source * _log_normaliser(fit.prior) - _log_normaliser(fit.posterior) - fit.divergence
    n = len(fit.probs)
    return evidence / n if variant == "paper" else -evidence / (n * len(fit.prior))


def pactran_gamma(
    source_probs: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    iterations: int = 10,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute PACTran with a Gamma prior on the weight of each label for each source class (Ding et al., ECCV 2022).

    Like :func:`pactran_dirichlet`, but with independent Gamma variables of shape :math:`\alpha\, n_y / n` and rate 1
    that a per-sample bound on the normaliser keeps tractable. The score is minus the bound on the mean negative
    log-likelihood; the published code returns the bound (lower is better) with all but a constant divided by the number
    of classes: ``"official"``.

    Args:
        source_probs: Shape ``(n, k)`` (tokens ``(b, t, k)`` and pixels ``(b, k, h, w)`` too), any floating dtype, rows
            on the simplex.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        alpha: Total prior shape of each source class, larger than 0.
        iterations: Variational updates.
        variant: ``"paper"`` (higher is better) or ``"official"`` (lower is better).
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor, in nats.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.pactran import pactran_gamma
        >>> pactran_gamma(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        tensor(-1.4017, dtype=torch.float64)
    """
    source_probs, labels = flatten_positions(source_probs, labels, ignore_index)
    fit = _fit_source_classes(source_probs, labels, alpha, iterations, variant, normalised=False)
    n = len(fit.probs)
    priors = fit.num_source * fit.prior.lgamma().sum() - fit.posterior.lgamma().sum()
    bound = priors + fit.divergence + (fit.probs @ fit.posterior.sum(0)).log().sum() - n
    return -bound / n - 1 if variant == "paper" else bound / (n * len(fit.prior)) + 1


class _SourceFit(NamedTuple):
    """Variational fit of the weights of c labels for each of k source classes.

    Attributes:
        probs: Source probabilities, shape ``(n, k)``, float64.
        prior: Prior counts of the labels, shape ``(c, 1)``.
        posterior: Posterior counts, shape ``(c, k)``.
        divergence: Of the responsibilities of the source classes from their probabilities, summed over samples, 0-d.
    """

    probs: Tensor
    prior: Tensor
    posterior: Tensor
    divergence: Tensor

    @property
    def num_source(self) -> int:
        return self.probs.shape[1]


def _fit_source_classes(
    source_probs: Tensor, labels: Tensor, alpha: float, iterations: int, variant: str, *, normalised: bool
) -> _SourceFit:
    """Check the input and fit; ``normalised`` says whether the weights of a source class sum to one."""
    check_source_options(alpha, iterations, variant)
    probs = check_features(source_probs, "source_probs")
    probs = check_probabilities(probs, len(probs)).double()
    probs = probs / probs.sum(1, keepdim=True)
    _, classes, counts = check_labels(labels, len(probs)).unique(return_inverse=True, return_counts=True)
    require_two_classes(len(counts))
    prior = (alpha * counts.double() / len(probs))[:, None] + _TINY
    log_source = (probs + _TINY).log()
    responsibilities = probs
    for _ in range(iterations):
        posterior = prior.expand(-1, probs.shape[1]).index_add(0, classes, responsibilities)
        logits = log_source + posterior.digamma()[classes]
        if normalised:
            logits = logits - posterior.sum(0).digamma()
        log_responsibilities = logits.log_softmax(dim=1)
        responsibilities = log_responsibilities.exp()
    divergence = (responsibilities * (log_responsibilities - log_source)).sum()
    return _SourceFit(probs, prior, posterior, divergence)


def _log_normaliser(concentration: Tensor) -> Tensor:
    return (concentration.sum(0).lgamma() - concentration.lgamma().sum(0)).sum()


def _fit_softmax(data: LabelledRows, penalty: float, max_iter: int) -> tuple[Tensor, Tensor, bool]:
    """Minimise the mean cross-entropy plus ``|W|^2 / (2 penalty)`` over weights and biases; a convex problem.

    Args:
        data: The samples.
        penalty: Larger is weaker.
        max_iter: Iterations of L-BFGS with a strong Wolfe search, from zero weights and the log class frequencies.

    Returns:
        The minimum (0-d), the probabilities there (shape ``(n, c)``), and whether the gradient vanished.
    """
    n, r = data.rows.shape
    frequencies = data.counts / n
    one_hot = torch.nn.functional.one_hot(data.classes, len(frequencies)).to(data.rows.dtype)
    weights = data.rows.new_zeros(r, len(frequencies), requires_grad=True)
    bias = frequencies.log().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights, bias], max_iter=max_iter, max_eval=2 * max_iter, tolerance_grad=_SLOPE, tolerance_change=1e-14,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    @torch.no_grad()
    def evaluate() -> tuple[Tensor, Tensor]:
        log_probs = (data.rows @ weights + bias).log_softmax(dim=1)
        slope = (log_probs.exp() - one_hot) / n
        weights.grad = data.rows.T @ slope + weights / penalty
        bias.grad = slope.sum(0)
        return weights.square().sum() / (2 * penalty) - (log_probs * one_hot).sum() / n, log_probs

    optimiser.step(lambda: float(evaluate()[0]))
    loss, log_probs = evaluate()
    assert weights.grad is not None
    assert bias.grad is not None
    slope = max(float(weights.grad.abs().max()), float(bias.grad.abs().max()))
    return loss, log_probs.exp(), slope <= 100 * _SLOPE
