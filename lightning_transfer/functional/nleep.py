"""LEEP on the responsibilities of a Gaussian mixture, for models without a classification head."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_transfer.functional._mixture import fit_mixture
from lightning_transfer.functional._rows import labelled_rows
from lightning_transfer.functional.leep import leep
from lightning_transfer.utilities.checks import (
    check_in_interval,
    check_one_of,
    check_positive_int,
    check_seed,
    flatten_positions,
)
from lightning_transfer.utilities.linalg import eigh, gram
from lightning_transfer.utilities.notice import warn_user

Covariance = Literal["full", "diag", "spherical"]


class Responsibilities(NamedTuple):
    """Soft assignment of samples to the components of a mixture.

    Attributes:
        probs: Shape ``(n, components)``, float64, rows sum to one.
        labels: Class ids of the same samples, shape ``(n,)``.
        converged: Whether the fit reached its tolerance.
        hard: Whether a component has too few samples for its covariance: the mixture is then hardly more than k-means.
    """

    probs: Tensor
    labels: Tensor
    converged: bool
    hard: bool


def nleep(
    features: Tensor,
    labels: Tensor,
    *,
    variance: float = 0.8,
    components_per_class: int = 5,
    covariance: Covariance = "full",
    seed: int = 0,
    ignore_index: int | None = None,
) -> Tensor:
    """N-LEEP (Li et al., CVPR 2021, section 4); higher is better.

    Features are projected on the principal components that hold the given share of the variance, a Gaussian mixture
    with several components a class is fitted to them, and LEEP is computed on its responsibilities in place of source
    probabilities. It lies in ``[-H(Y), 0]``. The fit is seeded and does not depend on the order of the samples. Its
    cost is ``n * components * r^2`` an iteration for ``r`` principal components (``n * components * r`` unless
    ``covariance`` is ``"full"``, as it is in published code).

    Args:
        features: Shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too).
        labels: Class ids, shape ``(n,)``, any integer dtype, ids with or without gaps.
        variance: Share of the variance that the principal components hold, in ``(0, 1]``.
        components_per_class: Components of the mixture for each class; fewer where there are not more samples than
            components.
        covariance: Shape of the components' covariances.
        seed: Seed of the fit.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64, nats.

    Raises:
        ValueError: If an input is malformed, not finite, or holds fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import nleep
        >>> labels = torch.arange(40) % 2
        >>> features = torch.stack([5.0 * labels, torch.linspace(0, 1, 40)], dim=1)
        >>> nleep(features, labels, components_per_class=1)
        tensor(0., dtype=torch.float64)
    """
    mixture = responsibilities(
        *flatten_positions(features, labels, ignore_index),
        variance=variance,
        components_per_class=components_per_class,
        covariance=covariance,
        seed=seed,
    )
    if not mixture.converged:
        rank_zero_only(warn_user)("nleep: the Gaussian mixture did not converge")
    return leep(mixture.probs, mixture.labels)


def check_nleep_options(variance: float, components_per_class: int, covariance: str, seed: int) -> None:
    """Check the options of :func:`nleep`.

    Raises:
        ValueError: If one of them is malformed.
    """
    if check_in_interval(variance, 0, 1, "variance") == 0:
        raise ValueError("Expected argument `variance` to be greater than 0, but got 0.")
    check_positive_int(components_per_class, "components_per_class")
    check_one_of(covariance, ("full", "diag", "spherical"), "covariance")
    check_seed(seed)


def responsibilities(
    features: Tensor,
    labels: Tensor,
    *,
    variance: float = 0.8,
    components_per_class: int = 5,
    covariance: Covariance = "full",
    seed: int = 0,
) -> Responsibilities:
    """Fit the mixture of :func:`nleep`.

    Args and errors are those of :func:`nleep`.

    Returns:
        Responsibilities and labels, both in the order of the samples along the first principal component.
    """
    check_nleep_options(variance, components_per_class, covariance, seed)
    data = labelled_rows(features, labels, rotate=True)
    n, num_classes = len(data.rows), len(data.counts)
    projected = _leading_components(data.rows, variance)
    order = projected[:, 0].argsort(stable=True)
    samples = projected[order]
    largest = samples[:, 0].std(correction=0)
    samples = samples / torch.where(largest > 0, largest, 1.0)  # the floor of the variances is a share of it then
    components = min(components_per_class, (n - 1) // num_classes) * num_classes or n - 1
    if covariance == "full":
        probs, converged = fit_mixture(samples, components, seed)
    else:
        probs, converged = _fit_narrow(samples, components, covariance, seed)
    hard = n / probs.shape[1] <= (samples.shape[1] if covariance == "full" else 1)
    return Responsibilities(probs, data.classes[order], converged, hard)


def _fit_narrow(samples: Tensor, components: int, covariance: Covariance, seed: int) -> tuple[Tensor, bool]:
    """Fit a mixture whose covariances have no more entries than a mean."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(components, covariance_type=covariance, random_state=seed)
    rows = samples.cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the second result
        fitted = mixture.fit(rows).predict_proba(rows)
    return torch.as_tensor(fitted, dtype=torch.float64, device=samples.device), bool(mixture.converged_)


def _leading_components(rows: Tensor, variance: float) -> Tensor:
    """Project centred rows on as many principal axes as hold a share of the variance, each with a definite sign."""
    values, vectors = eigh(gram(rows))
    shares = values.flip(0).clamp(min=0).cumsum(0)
    kept = min(len(values), int((shares < variance * shares[-1] * (1 - 1e-12)).sum()) + 1)
    projected = rows @ vectors[:, -kept:].flip(1)
    largest = projected.gather(0, projected.abs().argmax(0, keepdim=True))
    return torch.where(largest < 0, -projected, projected)
