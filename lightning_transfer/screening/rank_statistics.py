"""One number for how well scores order models by their accuracies: correlations, Rel@k, Recall@k and regret.

Weighted Kendall is pinned to ``scipy.stats.weightedtau(scores, accuracies, rank=True)``: hyperbolic weights, the mean
of the weighting by score and that by accuracy. Some published tables use ``rank=None`` instead, which weights by one
side only and gives other values for the same data; no function here does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from lightning_transfer.screening import rank_kernels
from lightning_transfer.screening.rank_kernels import Array, Kernel
from lightning_transfer.utilities.checks import check_positive_int

MINIMUM_MODELS = 3
DEFAULT_STATISTICS = (
    "pearson",
    "spearman",
    "kendall",
    "weighted_kendall",
    "rel_at_1",
    "rel_at_3",
    "recall_at_3",
    "top1_regret",
)


def pearson(scores: Any, accuracies: Any, *, higher_is_better: bool = True) -> float:
    """Pearson correlation of scores with accuracies, in [-1, 1].

    Args:
        scores: One score for each model; any sequence, array or tensor of at least three finite numbers.
        accuracies: One accuracy for each model, in the same order; higher is better.
        higher_is_better: False for scores that promise more when lower (a bound, a loss): their sign is turned first.

    Returns:
        The correlation.

    Raises:
        ValueError: If lengths differ, a value is not finite, there are fewer than three models, or a side is constant.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import pearson
        >>> round(pearson([1.0, 2.0, 4.0], [0.5, 0.6, 0.8]), 6)
        1.0
    """
    from scipy.stats import pearsonr

    return float(pearsonr(*_checked_pair(scores, accuracies, higher_is_better)).statistic)


def spearman(scores: Any, accuracies: Any, *, higher_is_better: bool = True) -> float:
    """Spearman's rank correlation (average ranks for ties), in [-1, 1]; arguments as in :func:`pearson`.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import spearman
        >>> round(spearman([1.0, 2.0, 40.0], [0.5, 0.6, 0.8]), 6)
        1.0
    """
    from scipy.stats import spearmanr

    return float(spearmanr(*_checked_pair(scores, accuracies, higher_is_better)).statistic)


def kendall(scores: Any, accuracies: Any, *, higher_is_better: bool = True) -> float:
    """Kendall's tau-b (corrected for ties), in [-1, 1]; arguments as in :func:`pearson`.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import kendall
        >>> round(kendall([1.0, 3.0, 2.0], [0.5, 0.6, 0.8]), 4)
        0.3333
    """
    from scipy.stats import kendalltau

    return float(kendalltau(*_checked_pair(scores, accuracies, higher_is_better), method="asymptotic").statistic)


def weighted_kendall(scores: Any, accuracies: Any, *, higher_is_better: bool = True) -> float:
    """Weighted Kendall tau (Vigna 2015) with SciPy's ``rank=True``, in [-1, 1]; arguments as in :func:`pearson`.

    Pairs count by ``1/(1+r_i) + 1/(1+r_j)``, so mistakes among the best models cost most; the value is the mean over
    ranks ``r`` by score and by accuracy, which makes it symmetric. ``rank=None`` (ranks by the first argument only) is
    another statistic.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import weighted_kendall
        >>> round(weighted_kendall([1.0, 3.0, 2.0], [0.5, 0.6, 0.8]), 4)
        0.1818
    """
    from scipy.stats import weightedtau

    return float(weightedtau(*_checked_pair(scores, accuracies, higher_is_better), rank=True).statistic)


def rel_at_k(scores: Any, accuracies: Any, k: int = 1, *, higher_is_better: bool = True) -> float:
    """Best accuracy among the k best-scored models over the best accuracy of all, in [0, 1].

    1 means that a most accurate model is among the k.

    Args:
        scores: As in :func:`pearson`; tied scores are ordered against the estimator (least accurate first).
        accuracies: As in :func:`pearson`, none negative.
        k: Models that a user would fine-tune, from 1 to their number.
        higher_is_better: As in :func:`pearson`.

    Returns:
        The ratio.

    Raises:
        ValueError: As :func:`pearson`, and if k is out of range or an accuracy is negative.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import rel_at_k
        >>> rel_at_k([3.0, 2.0, 1.0], [0.6, 0.8, 0.5], k=1), rel_at_k([3.0, 2.0, 1.0], [0.6, 0.8, 0.5], k=2)
        (0.7499999999999999, 1.0)
    """
    check_positive_int(k, "k")
    return _single(f"rel_at_{k}", kernel_of(f"rel_at_{k}"), scores, accuracies, higher_is_better)


def recall_at_k(
    scores: Any, accuracies: Any, k: int = 1, *, best: int | None = None, higher_is_better: bool = True
) -> float:
    """Share of the ``best`` most accurate models found among the k best-scored, in [0, 1].

    Models whose accuracy ties with the last of the best count as found. ``best=None`` means k (overlap of both top-k
    lists); with ``best=1`` the value is 1 when the most accurate model is among the k and 0 when not. Others as
    in :func:`rel_at_k`.

    Example:
        >>> from lightning_transfer.screening.rank_statistics import recall_at_k
        >>> recall_at_k([4.0, 3.0, 2.0, 1.0], [0.6, 0.8, 0.7, 0.5], k=2)
        0.5
    """
    check_positive_int(k, "k")
    if best is not None:
        check_positive_int(best, "best")
    kernel = partial(rank_kernels.recall_at_k_rows, k=k, best=best)
    return _single(f"recall_at_{k}", kernel, scores, accuracies, higher_is_better)


def top1_regret(scores: Any, accuracies: Any, *, higher_is_better: bool = True) -> float:
    """Accuracy lost by taking the best-scored model instead of the most accurate one, in its unit; 0 is best.

    Arguments as in :func:`rel_at_k`; accuracies may be negative (for example a negated error).

    Example:
        >>> from lightning_transfer.screening.rank_statistics import top1_regret
        >>> top1_regret([3.0, 2.0, 1.0], [60.0, 80.0, 50.0])
        20.0
    """
    return _single("top1_regret", kernel_of("top1_regret"), scores, accuracies, higher_is_better)


def kernel_of(name: str) -> Kernel:
    """Return the kernel of a statistic by its name, for example ``"rel_at_3"``.

    Raises:
        ValueError: If there is none.
    """
    simple: dict[str, Kernel] = {
        "pearson": rank_kernels.pearson_rows,
        "spearman": rank_kernels.spearman_rows,
        "kendall": rank_kernels.kendall_rows,
        "weighted_kendall": rank_kernels.weighted_kendall_rows,
        "top1_regret": rank_kernels.top1_regret_rows,
    }
    if name in simple:
        return simple[name]
    match = re.fullmatch(r"(rel|recall)_at_([1-9]\d*)", name)
    if match is None:
        names = (*simple, "rel_at_K", "recall_at_K")
        raise ValueError(f"Expected argument `statistics` to hold names among {names}, but got {name!r}.")
    rows: Callable[..., Array] = rank_kernels.rel_at_k_rows if match[1] == "rel" else rank_kernels.recall_at_k_rows
    return partial(rows, k=int(match[2]))


def check_applies(name: str, accuracies: Array) -> None:
    """Check that a statistic can be taken of these accuracies.

    Raises:
        ValueError: If it asks for more models than there are, or for a ratio of negative accuracies.
    """
    if "_at_" in name and int(name.rsplit("_", 1)[1]) > len(accuracies):
        raise ValueError(f"Expected `{name}` to ask for at most {len(accuracies)} models.")
    if name.startswith("rel_at_") and (accuracies.min() < 0 or accuracies.max() == 0):
        raise ValueError(
            f"Expected argument `accuracies` to be non-negative for `{name}`, but got {accuracies.min()}; "
            "leave it out of `statistics`."
        )


def _single(name: str, kernel: Kernel, scores: Any, accuracies: Any, higher_is_better: bool) -> float:
    x, y = _checked_pair(scores, accuracies, higher_is_better)
    check_applies(name, y)
    return value_of(kernel, x, y)


def _checked_pair(scores: Any, accuracies: Any, higher_is_better: bool) -> tuple[Array, Array]:
    x, y = as_vector(scores, "scores"), as_vector(accuracies, "accuracies")
    if len(x) != len(y):
        raise ValueError(f"Expected argument `scores` to have {len(y)} entries like `accuracies`, but got {len(x)}.")
    check_column(x, "scores")
    check_column(y, "accuracies")
    return (x if higher_is_better else -x), y


def as_vector(values: Any, name: str) -> Array:
    """Read one number a model from a sequence, array or tensor; None becomes NaN.

    Raises:
        ValueError: If it is no row of numbers.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {name} to be numbers, but got {values!r}.") from error
    if vector.ndim != 1:
        raise ValueError(f"Expected {name} to be one number a model, but got shape {vector.shape}.")
    return vector


def check_column(values: Array, name: str) -> None:
    """Check that one side of a ranking is finite, long enough and not constant.

    Raises:
        ValueError: If it is not.
    """
    if len(values) < MINIMUM_MODELS:
        raise ValueError(f"Expected {name} for at least {MINIMUM_MODELS} models, but got {len(values)}.")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"Expected {name} to be finite, but got {bad} NaN or infinite values.")
    if np.ptp(values) == 0:
        raise ValueError(f"Expected {name} to differ between models, but all are {values[0]}: there is no ranking.")


def value_of(kernel: Kernel, scores: Array, accuracies: Array) -> float:
    """Return the statistic of one row."""
    return float(kernel(scores[None], accuracies[None])[0])
