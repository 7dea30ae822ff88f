"""Judging estimators: how well do scores order models by the accuracy that fine-tuning gives them?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_transfer.screening.rank_kernels import Array, Kernel
from lightning_transfer.screening.rank_resampling import ROUNDING, Resamples
from lightning_transfer.screening.rank_statistics import (
    DEFAULT_STATISTICS,
    as_vector,
    check_applies,
    check_column,
    kendall,
    kernel_of,
    pearson,
    recall_at_k,
    rel_at_k,
    spearman,
    top1_regret,
    value_of,
    weighted_kendall,
)
from lightning_transfer.utilities.checks import check_one_of, check_positive_int

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BaselineComparison",
    "RankingStatistic",
    "RankingTable",
    "ablate_largest",
    "evaluate_over_targets",
    "evaluate_ranking",
    "kendall",
    "pearson",
    "recall_at_k",
    "rel_at_k",
    "spearman",
    "top1_regret",
    "weighted_kendall",
]


@dataclass(frozen=True)
class BaselineComparison:
    """One statistic of an estimator against the static baseline's, on the same models and the same resamples.

    Attributes:
        value: The statistic of the baseline.
        advantage: How much better the estimator is (positive: better, whatever the statistic's own direction).
        lower: Lower end of the interval of the advantage.
        upper: Upper end; an interval that holds 0 leaves open whether the estimator beats the baseline.
    """

    value: float
    advantage: float
    lower: float
    upper: float


@dataclass(frozen=True)
class RankingStatistic:
    """One statistic of one estimator, with its uncertainty and what chance alone would give.

    Attributes:
        estimator: Name of the estimator.
        name: Name of the statistic.
        value: Its value on all models.
        lower: Lower end of its interval (over the choice of models).
        upper: Upper end.
        level: Nominal coverage of the interval.
        interval: ``"bootstrap"`` (bias-corrected and accelerated) or ``"jackknife"`` (Student's t, delete-one error).
        undefined_resamples: Bootstrap draws left out because all their scores or accuracies are alike.
        null_mean: Mean of the statistic when scores are shuffled over models.
        null_std: Its standard deviation there.
        p_value: One-sided: chance that shuffled scores do at least as well.
        null: ``"exact"`` (every order) or ``"permutation"`` (seeded draws).
        num_models: Models used.
        leave_one_out: The value with each model left out in turn, in the order of models; None where undefined. Empty
            for three models.
        most_influential: The model whose removal moves the value most.
        baseline: Comparison with the static baseline, where one was given.
    """

    estimator: str
    name: str
    value: float
    lower: float
    upper: float
    level: float
    interval: str
    undefined_resamples: int
    null_mean: float
    null_std: float
    p_value: float
    null: str
    num_models: int
    leave_one_out: tuple[float | None, ...]
    most_influential: str | None
    baseline: BaselineComparison | None


@dataclass(frozen=True)
class RankingTable:
    """What :func:`evaluate_ranking` gives.

    Attributes:
        statistics: One entry for each estimator and statistic.
        models: Names of the models, in the order given.
        omitted: For each estimator the models it was not judged on, because its score or their accuracy is missing.
    """

    statistics: tuple[RankingStatistic, ...]
    models: tuple[str, ...]
    omitted: Mapping[str, tuple[str, ...]]

    def get(self, name: str, estimator: str | None = None) -> RankingStatistic:
        """Return one entry; the estimator may be left out when there is only one.

        Raises:
            KeyError: If there is no such entry, or more than one.
        """
        matches = [s for s in self.statistics if s.name == name and estimator in (None, s.estimator)]
        if len(matches) != 1:
            available = sorted({(s.estimator, s.name) for s in self.statistics})
            raise KeyError(f"{len(matches)} entries for {name!r} of {estimator!r}; there are {available}")
        return matches[0]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each estimator and statistic; leave-one-out as its lowest and highest value."""
        import pandas as pd

        rows = []
        for statistic in self.statistics:
            row = asdict(statistic)
            left_out = [value for value in row.pop("leave_one_out") if value is not None]
            row["leave_one_out_lowest"], row["leave_one_out_highest"] = (
                (min(left_out), max(left_out)) if left_out else (None, None)
            )
            row |= {f"baseline_{key}": value for key, value in (row.pop("baseline") or {}).items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        shown = ["estimator", "name", "value", "lower", "upper", "null_std", "p_value", "num_models"]
        return str(self.to_pandas()[shown].to_string(index=False, float_format="{:.3f}".format))


def evaluate_ranking(
    scores: Any,
    accuracies: Any,
    *,
    models: Sequence[str] | None = None,
    parameters: Any = None,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    higher_is_better: bool | Mapping[str, bool] = True,
    level: float = 0.95,
    interval: str = "bootstrap",
    num_resamples: int = 2000,
    seed: int = 0,
    nan_policy: str = "raise",
) -> RankingTable:
    """Judge estimators by how their scores order models, with intervals, chance levels and a static baseline.

    Args:
        scores: One score for each model, or a mapping (or DataFrame) of estimator name to such a column.
        accuracies: One accuracy for each model, higher is better (negate errors).
        models: Names of the models; ``"0"``, ``"1"``, ... without.
        parameters: Parameter counts (or another score that has not seen the target): the static baseline. It becomes an
            estimator named ``"parameters"`` and every other one is compared with it.
        statistics: Names: ``pearson``, ``spearman``, ``kendall``, ``weighted_kendall``, ``rel_at_K``, ``recall_at_K``,
            ``top1_regret``, with a number for K.
        higher_is_better: Direction of the scores: for all, or by estimator (those not named: True).
        level: Coverage of the intervals, in (0, 1).
        interval: ``"bootstrap"``: models drawn with replacement, bias-corrected, accelerated; ``"jackknife"``: delete
            one model, needs four.
        num_resamples: Bootstrap draws, and permutations for the null where there are too many orders to take all.
        seed: Seed of both.
        nan_policy: ``"raise"``, or ``"omit"`` to judge each estimator on the models it has a score for (the others are
            named in ``omitted``).

    Returns:
        The table.

    Raises:
        ValueError: If lengths differ, a value is infinite (or NaN under ``"raise"``), fewer than three models remain,
            scores or accuracies are all equal, a statistic is unknown or does not apply, or an option is out of range.

    Example:
        >>> from lightning_transfer.screening.ranking import evaluate_ranking
        >>> table = evaluate_ranking({"logme": [1.0, 2.0, 3.0, 4.0]}, [0.5, 0.7, 0.6, 0.9], statistics=["kendall"])
        >>> entry = table.get("kendall")
        >>> round(entry.value, 4), entry.null, round(entry.p_value, 4)
        (0.6667, 'exact', 0.1667)
    """
    _check_options(level, interval, num_resamples)
    check_one_of(nan_policy, ("raise", "omit"), "nan_policy")
    truth = as_vector(accuracies, "accuracies")
    names = _model_names(models, len(truth))
    columns = _columns(scores, parameters, higher_is_better, len(truth))
    kernels = {name: kernel_of(name) for name in dict.fromkeys(statistics)}

    entries: list[RankingStatistic] = []
    omitted: dict[str, tuple[str, ...]] = {}
    for estimator, column in columns.items():
        baseline = columns["parameters"] if parameters is not None and estimator != "parameters" else None
        kept = ~(np.isnan(column) | np.isnan(truth)) if nan_policy == "omit" else np.ones(len(truth), dtype=bool)
        if baseline is not None and nan_policy == "omit":
            kept &= ~np.isnan(baseline)
        omitted[estimator] = tuple(name for name, keep in zip(names, kept, strict=True) if not keep)
        check_column(column[kept], f"scores of {estimator!r}")
        check_column(truth[kept], "accuracies")
        judged = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
        resamples = Resamples(truth[kept], judged, level, interval, num_resamples, seed)
        if baseline is not None:
            baseline = baseline[kept]
            check_column(baseline, "parameters")
        for name, kernel in kernels.items():
            check_applies(name, resamples.accuracies)
            entries.append(_judge(estimator, name, kernel, column[kept], baseline, resamples))
    return RankingTable(tuple(entries), names, omitted)


def evaluate_over_targets(
    scores: Mapping[str, Any],
    accuracies: Mapping[str, Any],
    *,
    models: Sequence[str] | None = None,
    parameters: Any = None,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    higher_is_better: bool | Mapping[str, bool] = True,
    level: float = 0.95,
    interval: str = "bootstrap",
    num_resamples: int = 2000,
    seed: int = 0,
) -> RankingTable:
    """Judge estimators by the mean of each statistic over several targets on which the same models were tried.

    Models are drawn, left out and shuffled once for all targets together. The null is therefore one random order of the
    models used on every target: when accuracies agree between targets its mean statistic spreads nearly as wide as on a
    single target, and a static order can look good on all of them by luck.

    Args:
        scores: Target name to what :func:`evaluate_ranking` takes as scores; the same estimators for every target.
        accuracies: Target name to one accuracy for each model, in the same order of models for every target.
        models: As in :func:`evaluate_ranking`.
        parameters: As in :func:`evaluate_ranking`; one column for all targets.
        statistics: As in :func:`evaluate_ranking`.
        higher_is_better: As in :func:`evaluate_ranking`.
        level: As in :func:`evaluate_ranking`.
        interval: As in :func:`evaluate_ranking`; it speaks of other models, not of other targets.
        num_resamples: As in :func:`evaluate_ranking`.
        seed: As in :func:`evaluate_ranking`.

    Returns:
        The table of means.

    Raises:
        ValueError: As :func:`evaluate_ranking` (missing scores are always refused), and if targets or estimators vary.

    Example:
        >>> from lightning_transfer.screening.ranking import evaluate_over_targets
        >>> scores = {"pets": [1.0, 2.0, 3.0, 4.0], "cars": [2.0, 1.0, 3.0, 4.0]}
        >>> accuracies = {"pets": [0.1, 0.2, 0.3, 0.4], "cars": [0.1, 0.2, 0.3, 0.4]}
        >>> table = evaluate_over_targets(scores, accuracies, statistics=["kendall"])
        >>> round(table.get("kendall").value, 4)
        0.8333
    """
    _check_options(level, interval, num_resamples)
    if not scores or set(scores) != set(accuracies):
        raise ValueError(f"Expected the same targets in `scores` and `accuracies`, but got {[*scores], [*accuracies]}.")
    truths = [as_vector(accuracies[target], f"accuracies of {target!r}") for target in scores]
    names = _model_names(models, len(truths[0]))
    n = len(names)
    columns = [_columns(scores[target], parameters, higher_is_better, n) for target in scores]
    if any(set(c) != set(columns[0]) for c in columns) or any(len(truth) != n for truth in truths):
        raise ValueError("Expected the same models and estimators for every target.")
    for target, truth, target_columns in zip(scores, truths, columns, strict=True):
        check_column(truth, f"accuracies of {target!r}")
        for estimator, column in target_columns.items():
            check_column(column, f"scores of {estimator!r} for {target!r}")
        for name in statistics:
            check_applies(name, truth)

    # rows of model numbers stand in for rows of scores, so that one draw of models serves every target; numbers from n
    # on stand for the baseline's scores
    numbers = np.arange(n, dtype=np.float64)
    resamples = Resamples(numbers, names, level, interval, num_resamples, seed)
    entries = []
    for estimator in columns[0]:
        compared = parameters is not None and estimator != "parameters"
        tables = [np.concatenate([c[estimator], c["parameters"]]) if compared else c[estimator] for c in columns]
        for name in dict.fromkeys(statistics):
            averaged = _mean_over_targets(kernel_of(name), tables, truths)
            entries.append(_judge(estimator, name, averaged, numbers, numbers + n if compared else None, resamples))
    return RankingTable(tuple(entries), names, dict.fromkeys(columns[0], ()))


def ablate_largest(
    scores: Any, accuracies: Any, parameters: Any, *, max_removed: int | None = None, **options: Any
) -> dict[int, RankingTable]:
    """Judge again with the 0, 1, 2, ... largest models taken away: does the estimator do more than prefer big models?

    Args:
        scores: As in :func:`evaluate_ranking`.
        accuracies: As in :func:`evaluate_ranking`.
        parameters: Parameter counts; also the static baseline of every table.
        max_removed: How many to take away at most; by default as many as leave four models.
        **options: Further arguments of :func:`evaluate_ranking`, except ``models``.

    Returns:
        Number of models taken away to table.

    Raises:
        ValueError: As :func:`evaluate_ranking`.

    Example:
        >>> from lightning_transfer.screening.ranking import ablate_largest
        >>> tables = ablate_largest([1, 2, 3, 5, 4], [1, 2, 3, 4, 5], [10, 20, 30, 40, 50], statistics=["kendall"])
        >>> [round(table.get("kendall", "score").value, 2) for table in tables.values()]
        [0.8, 1.0]
    """
    truth, sizes = as_vector(accuracies, "accuracies"), as_vector(parameters, "parameters")
    columns = _columns(scores, sizes, True, len(truth))
    del columns["parameters"]
    limit = max(0, len(truth) - 4) if max_removed is None else max_removed
    by_size = np.argsort(sizes, kind="stable")
    tables = {}
    for removed in range(limit + 1):
        kept = np.sort(by_size[: len(truth) - removed])
        subset = {name: column[kept] for name, column in columns.items()}
        tables[removed] = evaluate_ranking(
            subset, truth[kept], models=[str(i) for i in kept], parameters=sizes[kept], **options
        )
    return tables


def _judge(
    estimator: str, name: str, kernel: Kernel, scores: Array, baseline: Array | None, resamples: Resamples
) -> RankingStatistic:
    sign = -1.0 if name == "top1_regret" else 1.0
    low, high = (0.0, math.inf) if name == "top1_regret" else (0.0, 1.0) if "_at_" in name else (-1.0, 1.0)
    value = value_of(kernel, scores, resamples.accuracies)
    draws, left_out = resamples.replicates(kernel, scores)
    lower, upper = resamples.interval_of(value, draws, left_out)
    null = resamples.null(kernel, scores)
    as_good = int((sign * null >= sign * value - ROUNDING).sum())
    comparison = None
    if baseline is not None:
        other = value_of(kernel, baseline, resamples.accuracies)
        advantages = [
            sign * (a - b) for a, b in zip((draws, left_out), resamples.replicates(kernel, baseline), strict=True)
        ]
        advantage = sign * (value - other)
        comparison = BaselineComparison(other, advantage, *resamples.interval_of(advantage, *advantages))
    moved = np.abs(left_out - value)
    return RankingStatistic(
        estimator=estimator,
        name=name,
        value=value,
        lower=max(low, lower),
        upper=min(high, upper),
        level=resamples.level,
        interval=resamples.interval,
        undefined_resamples=int(np.isnan(draws).sum()),
        null_mean=float(null.mean()),
        null_std=float(null.std()),
        p_value=as_good / len(null) if resamples.exact else (1 + as_good) / (1 + len(null)),
        null="exact" if resamples.exact else "permutation",
        num_models=len(scores),
        leave_one_out=tuple(None if math.isnan(v) else float(v) for v in left_out),
        most_influential=None if np.isnan(moved).all() else resamples.models[int(np.nanargmax(moved))],
        baseline=comparison,
    )


def _mean_over_targets(kernel: Kernel, scores: Sequence[Array], accuracies: Sequence[Array]) -> Kernel:
    def averaged(score_numbers: Array, accuracy_numbers: Array) -> Array:
        chosen_scores, chosen_accuracies = score_numbers.astype(int), accuracy_numbers.astype(int)
        values = [kernel(s[chosen_scores], a[chosen_accuracies]) for s, a in zip(scores, accuracies, strict=True)]
        return np.asarray(np.mean(values, axis=0))

    return averaged


def _check_options(level: float, interval: str, num_resamples: int) -> None:
    check_one_of(interval, ("bootstrap", "jackknife"), "interval")
    check_positive_int(num_resamples, "num_resamples", minimum=100)
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"Expected argument `level` to be a number in (0, 1), but got {level!r}.")


def _model_names(models: Sequence[str] | None, count: int) -> tuple[str, ...]:
    names = tuple(str(i) for i in range(count)) if models is None else tuple(map(str, models))
    if len(names) != count:
        raise ValueError(f"Expected argument `models` to name {count} models, but got {len(names)}.")
    return names


def _columns(
    scores: Any, parameters: Any, higher_is_better: bool | Mapping[str, bool], length: int
) -> dict[str, Array]:
    named = {str(name): column for name, column in scores.items()} if _is_table(scores) else {"score": scores}
    if not named:
        raise ValueError("Expected argument `scores` to hold at least one estimator, but got none.")
    directions = higher_is_better if isinstance(higher_is_better, Mapping) else dict.fromkeys(named, higher_is_better)
    if unknown := sorted(set(directions) - set(named)):
        raise ValueError(f"Expected argument `higher_is_better` to name estimators of `scores`, but got {unknown}.")
    if parameters is not None:
        if "parameters" in named:
            raise ValueError("Expected argument `scores` without a column 'parameters' beside argument `parameters`.")
        named["parameters"] = parameters
    columns = {}
    for name, column in named.items():
        values = as_vector(column, f"scores of {name!r}")
        if len(values) != length:
            raise ValueError(f"Expected scores of {name!r} to have {length} entries, but got {len(values)}.")
        columns[name] = values if directions.get(name, True) else -values
    return columns


def _is_table(scores: Any) -> bool:
    return isinstance(scores, Mapping) or (hasattr(scores, "items") and getattr(scores, "ndim", 0) == 2)
