"""PACTran: optimal PAC-Bayes bounds on the loss after transfer, under Gaussian, Dirichlet and Gamma priors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional._variants import published
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
from lightning_transfer.utilities.linalg import cholesky, gram
from lightning_transfer.utilities.notice import warn_user

_TINY = 1e-10  # keeps logarithms finite, as in the published code
_DECREMENT = 1e-12  # part of the value by which it may be above the minimum
_DENSE = 2e9  # products up to which the whole Hessian is formed
_MEMORY = 10  # steps that L-BFGS remembers
_NEAR = 1e-10  # as _DECREMENT, from where on L-BFGS takes products in double precision
_SETTLED = 1e-3  # as _DECREMENT, from where on the scatter of the rows helps L-BFGS
_TRIALS = 30  # of a search along a line


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
        max_iter: Steps of Newton's method, or a tenth of those of L-BFGS, which fits large problems.
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
    score, converged = gaussian_score(
        *flatten_positions(features, labels, ignore_index),
        lambda_factor=lambda_factor,
        variance_factor=variance_factor,
        max_iter=max_iter,
        variant=variant,
    )
    if not converged:
        rank_zero_only(warn_user)(f"pactran: {unconverged(max_iter)}")
    return score


def unconverged(max_iter: int) -> str:
    """What is said of a classifier that was not fitted to the end."""
    return f"the classifier did not converge in {max_iter} iterations (`max_iter`)"


def gaussian_score(
    features: Tensor, labels: Tensor, *, lambda_factor: float, variance_factor: float, max_iter: int, variant: str
) -> tuple[Tensor, bool]:
    """Compute :func:`pactran`, and whether the fit of the classifier converged."""
    check_gauss_options(lambda_factor, variance_factor, max_iter, variant)
    data = labelled_rows(features, labels, rotate=True)
    n, size = len(data.rows), data.num_features * len(data.counts)
    penalty = lambda_factor * n
    optimum, spread, converged = _fit_softmax(data, penalty, max_iter)
    squares = data.rows.square().sum(1)
    complexity = size / penalty * variance_factor / data.num_features / 2
    if variant == "official":
        inside = published("pactran", "total_curvature")(squares, spread) * penalty / size
        return optimum + complexity * inside.log1p(), converged
    return -optimum - complexity * (squares @ spread / n * penalty / size).log1p(), converged


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
    score: Tensor = evidence / n
    return published("pactran", "per_entry")(-score, fit.prior) if variant == "official" else score


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

    Args and errors are those of :func:`pactran_dirichlet`, but that ``alpha`` is the total prior shape of each source
    class.

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
    score: Tensor = -bound / n - 1
    return published("pactran", "per_entry")(bound / n, fit.prior) + 1 if variant == "official" else score


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


class _Softmax(NamedTuple):
    """Softmax classifier on n samples, with all digits of probabilities near 0 and 1.

    Attributes:
        losses: Cross-entropy of each sample, shape ``(n,)``.
        probs: Shape ``(n, c)``.
        errors: Probabilities less the one-hot labels, shape ``(n, c)``.
    """

    losses: Tensor
    probs: Tensor
    errors: Tensor

    @classmethod
    def of_logits(cls, logits: Tensor, labels: Tensor) -> _Softmax:
        """Evaluate logits ``(n, c)`` of samples of classes ``labels``, shape ``(n, 1)``."""
        top, own = logits.amax(1, keepdim=True), logits.gather(1, labels)
        probs = (logits - top).exp_()
        likely = probs.gather(1, labels)
        others = probs.scatter_(1, labels, 0.0).sum(1, keepdim=True)
        losses = torch.nn.functional.softplus(others.log() + top - own, threshold=1e3)
        total = others + likely
        probs.div_(total).scatter_(1, labels, likely / total)
        return cls(losses.squeeze(1), probs, probs.scatter(1, labels, -others / total))

    @property
    def spread(self) -> Tensor:
        """Sum of ``p (1 - p)`` over the classes, shape ``(n,)``."""
        return (self.probs * torch.where(self.errors <= 0, -self.errors, 1 - self.probs)).sum(1)


def _fit_softmax(data: LabelledRows, penalty: float, max_iter: int) -> tuple[Tensor, Tensor, bool]:
    """Minimise the mean cross-entropy plus ``|W|^2 / (2 penalty)`` over weights and biases; a convex problem.

    From zero weights and the log class frequencies, by Newton's method, or by L-BFGS where the Hessian is large. Both
    end where the decrement, which estimates how far the value is above the minimum, is a small part of the value: a
    test that no scale of the features moves.

    Args:
        data: The samples.
        penalty: Larger is weaker.
        max_iter: Newton steps, or a tenth of those of L-BFGS.

    Returns:
        The minimum (0-d), the sum of ``p (1 - p)`` there for each sample (shape ``(n,)``), and whether it was reached.
    """
    n = len(data.rows)
    scale = float(data.total_variance) ** 0.5 or 1.0
    rows = torch.cat([data.rows / scale, data.rows.new_ones(n, 1)], dim=1)  # the last weight is the bias
    decay = rows.new_full((rows.shape[1],), 1 / scale / scale / penalty)
    decay[-1] = 0
    weights = rows.new_zeros(len(data.counts), rows.shape[1])
    weights[:, -1] = (data.counts / n).log()
    problem = _Problem(rows, data.classes[:, None], decay)
    solve = _newton if n * weights.numel() ** 2 <= _DENSE else _quasi_newton
    value, fit, converged = solve(problem, weights, max_iter)
    return value, fit.spread, converged


class _Problem(NamedTuple):
    """The loss of a classifier whose weights have shape ``(c, r)``.

    Attributes:
        rows: Shape ``(n, r)``.
        labels: Shape ``(n, 1)``.
        decay: Of the weights of each feature, shape ``(r,)``.
    """

    rows: Tensor
    labels: Tensor
    decay: Tensor

    def logits(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Logits ``(n, c)`` in float64, computed with the rows as given."""
        return (weights.to(rows.dtype) @ rows.T).T.to(self.rows.dtype, memory_format=torch.contiguous_format)

    def evaluate(self, weights: Tensor, logits: Tensor | None = None) -> tuple[Tensor, _Softmax]:
        """The loss, 0-d, and the probabilities."""
        fit = _Softmax.of_logits(self.logits(weights, self.rows) if logits is None else logits, self.labels)
        return (self.decay * weights.square()).sum() / 2 + fit.losses.mean(), fit

    def gradient(self, weights: Tensor, fit: _Softmax, rows: Tensor) -> Tensor:
        """Shape ``(c, r)``, computed with the rows as given."""
        errors = fit.errors.to(rows.dtype).T
        return (errors @ rows).to(weights.dtype) / len(rows) + self.decay * weights


class _Point(NamedTuple):
    """Weights, shape ``(c, r)``, the logits that they give, shape ``(n, c)``, the loss and the probabilities there."""

    weights: Tensor
    logits: Tensor
    value: Tensor
    fit: _Softmax

    @classmethod
    def at(cls, problem: _Problem, weights: Tensor) -> _Point:
        logits = problem.logits(weights, problem.rows)
        return cls(weights, logits, *problem.evaluate(weights, logits))


def _newton(problem: _Problem, weights: Tensor, max_iter: int) -> tuple[Tensor, _Softmax, bool]:
    """Minimise by Newton's method with the whole Hessian."""
    value, fit = problem.evaluate(weights)
    for _ in range(max_iter):
        gradient = problem.gradient(weights, fit, problem.rows)
        step = _dense_step(problem.rows, fit.probs, problem.decay, gradient)
        decrement = -float((step * gradient).sum())
        trial, trial_fit = problem.evaluate(weights + step)
        if decrement <= _DECREMENT * float(value):
            return (trial, trial_fit, True) if bool(trial <= value) else (value, fit, True)
        length = 1.0
        while float(trial) > float(value) - 1e-4 * length * decrement and length > 1e-9:
            length /= 2
            trial, trial_fit = problem.evaluate(weights + length * step)
        if length <= 1e-9:
            break
        weights, value, fit = weights + length * step, trial, trial_fit
    return value, fit, False


def _quasi_newton(problem: _Problem, weights: Tensor, max_iter: int) -> tuple[Tensor, _Softmax, bool]:
    """Minimise by L-BFGS, with products in single precision until the minimum is near.

    The logits move along a line by one product, so that a search along it takes none.
    """
    rows, curvature, settled = problem.rows.float(), _Curvature(), False
    point = _Point.at(problem, weights)
    last: tuple[Tensor, Tensor] | None = None  # weights and gradient before
    for iteration in range(10 * max_iter):
        gradient = problem.gradient(point.weights, point.fit, rows)
        if last is not None:
            curvature.add(point.weights - last[0], gradient - last[1])
        step = -curvature.solve(gradient)
        decrement = -float((step * gradient).sum())
        if not settled and curvature.pairs and decrement <= _SETTLED * float(point.value):
            settled = True
            curvature.settle(problem, point.fit)
            step = -curvature.solve(gradient)
            decrement = -float((step * gradient).sum())
        single = rows.dtype != problem.rows.dtype
        near = decrement <= (_NEAR if single else _DECREMENT) * float(point.value)
        if near and not single:
            return point.value, point.fit, True
        found = None if near else _line_search(problem, point, step, problem.logits(step, rows))
        if found is not None and not (single and iteration >= 5 * max_iter):
            last, point = (point.weights, gradient), found
        elif single:
            rows, last = problem.rows, None
            point = _Point.at(problem, point.weights)
        else:
            break
    return point.value, point.fit, False


def _line_search(problem: _Problem, start: _Point, step: Tensor, moved: Tensor) -> _Point | None:
    """Go along a step, which moves the logits by ``moved``, until the slope is half of what it was, if it can be."""

    def slope(point: _Point) -> float:
        along = point.fit.errors.flatten() @ moved.flatten() / len(moved)
        return float(along + (problem.decay * point.weights * step).sum())

    first = slope(start)
    if first >= 0:
        return None
    (low, falling), high, rising, length = (0.0, first), None, 0.0, 1.0
    for _ in range(_TRIALS):
        weights, logits = start.weights + length * step, start.logits + length * moved
        trial = _Point(weights, logits, *problem.evaluate(weights, logits))
        here = slope(trial)
        below = bool(trial.value <= start.value)
        if below and abs(here) <= -first / 2:
            return trial
        if here < 0 and below:
            before, low, falling = (low, falling), length, here
        else:
            high, rising = length, max(here, 0.0)
        if high is None:
            ahead = (low - before[0]) * here / min(before[1] - here, -1e-300)
            length = low + min(max(ahead, 0.1 * low), 9 * low)
        else:
            length = low + (high - low) * min(max(falling / (falling - rising), 0.1), 0.9)
    return None


class _Curvature:
    """What L-BFGS knows of the inverse Hessian: steps, changes of the gradient, and later the scatter of the rows."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.inverse: Tensor | None = None

    def settle(self, problem: _Problem, fit: _Softmax) -> None:
        """Start from the scatter of the rows, weighed by the mean of ``p (1 - p)``, and the decay.

        For each class the Hessian is about that, once ``p`` changes little; while it does, this is of no use.
        """
        scatter = gram(problem.rows) * (fit.spread.mean() / fit.probs.shape[1] / len(problem.rows))
        factor = cholesky(scatter + problem.decay.diag())
        self.inverse = None if factor is None else torch.cholesky_inverse(factor)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember how the gradient changed over a step."""
        along = step.flatten() @ change.flatten()
        if float(along) > 0:
            self.pairs = [*self.pairs[1 - _MEMORY :], (step.flatten(), change.flatten(), along)]

    def solve(self, gradient: Tensor) -> Tensor:
        """Product of the inverse Hessian with a gradient, shape ``(c, r)``."""
        result = gradient.flatten()
        shares = []
        for step, change, along in reversed(self.pairs):
            shares.append(step @ result / along)
            result = result.addcmul(change, shares[-1], value=-1)
        result = self._first(result.view_as(gradient)).flatten()
        if self.pairs:
            _, change, along = self.pairs[-1]
            result = result * (along / (change @ self._first(change.view_as(gradient)).flatten()))
        for (step, change, along), share in zip(self.pairs, reversed(shares), strict=True):
            result = result.addcmul(step, share - change @ result / along)
        return result.view_as(gradient)

    def _first(self, gradient: Tensor) -> Tensor:
        return gradient if self.inverse is None else gradient @ self.inverse


def _dense_step(rows: Tensor, probs: Tensor, decay: Tensor, gradient: Tensor) -> Tensor:
    """Step of Newton's method from the whole Hessian."""
    (n, r), c = rows.shape, probs.shape[1]
    weighted = (rows[:, None, :] * probs[:, :, None]).reshape(n, c * r)
    hessian = gram(weighted) / -n
    rest = 1 - torch.eye(c).to(probs)
    for a, weight in enumerate((probs * (probs @ rest)).T):
        block = slice(a * r, (a + 1) * r)
        hessian[block, block] = rows.T @ (weight[:, None] * rows) / n + decay.diag()
    hessian[r - 1 :: r, r - 1 :: r] += hessian.diagonal().max() / c  # a bias common to all classes changes nothing
    noise = float(hessian.diagonal().max()) * torch.finfo(hessian.dtype).eps
    for _ in range(20):
        factor = cholesky(hessian)
        if factor is not None:
            break
        hessian.diagonal().add_(noise)
        noise *= 10
    assert factor is not None
    return torch.cholesky_solve(-gradient.reshape(-1, 1), factor).reshape(c, r)
