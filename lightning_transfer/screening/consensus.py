"""Many scores of the same backbones as one opinion: expected ranks and the probability of being the best."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_transfer.metrics.registry import METRICS
from lightning_transfer.report.text import title
from lightning_transfer.screening.row import COSTS
from lightning_transfer.screening.standings import LOWER_IS_BETTER
from lightning_transfer.utilities.files import read_json, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIZE = "parameters"
_TRUTH = "truth"
_NO_SCORES = {"rank", "backbone", "status", "parameters_rank", "control", "truth_spread", *COSTS} - {SIZE}
_PRIOR_GROUPS = 10.0  # what is taken for granted weighs as much as so many targets of a study
_BELIEFS = {"scores": 0.4, "size": 0.3, "between": 0.6}  # correlations that are taken for granted
_MOST_EXPLAINED = 0.95  # of the variance of the truth
_FORMAT = 1
_GRID = np.linspace(-12.0, 12.0, 2401)
_FILE = Path(__file__).with_name("evidence.json")


@dataclass(frozen=True)
class Evidence:
    """How scores go together with the accuracy after fine-tuning, and with each other: correlations of normal scores.

    What no study has seen keeps the prior: every score correlates 0.4 with the accuracy and 0.6 with any other one, the
    number of parameters 0.3 with everything, so that all scores have equal weights. A study moves each correlation as
    far as its targets outweigh ten that had said the prior.

    Attributes:
        sums: By a pair of columns (``"truth"`` is the accuracy), in alphabetical order, the sum of their correlations
            over the targets of a study.
        counts: By the same pairs the number of targets.
        origin: What they were learned from, in words; empty for the prior.
    """

    sums: Mapping[tuple[str, str], float] = field(default_factory=dict)
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    origin: str = ""

    @classmethod
    def learn(cls, tables: Iterable[pd.DataFrame], truth: str = _TRUTH, origin: str = "a study") -> Evidence:
        """Learn from tables of scores whose outcome is known.

        Args:
            tables: One a target: one row a backbone, columns by the names of the scores and ``parameters``, and the
                accuracy. Tables or columns with fewer than three values tell nothing.
            truth: Name of the column with the accuracy.
            origin: What the tables are, in words.

        Raises:
            ValueError: If a table lacks the accuracy.
        """
        return cls.pooled(map(partial(_learn_from, truth=truth), tables), origin)

    @classmethod
    def pooled(cls, parts: Iterable[Evidence], origin: str = "a study") -> Evidence:
        """What several pieces of evidence, of different targets, say together.

        Args:
            parts: The pieces.
            origin: What they were learned from, in words.
        """
        sums: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], int] = {}
        for part in parts:
            for pair, value in part.sums.items():
                sums[pair] = sums.get(pair, 0.0) + value
                counts[pair] = counts.get(pair, 0) + part.counts[pair]
        return cls(sums, counts, origin if counts else "")

    @classmethod
    def load(cls, path: str | Path | None = None) -> Evidence:
        """Read what :meth:`save` wrote; without a path what the package comes with.

        Raises:
            ValueError: If it is no such file.
        """
        path = _FILE if path is None else Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"Expected `{path}` to hold evidence of format {_FORMAT}, but got {str(content)[:80]}.")
        try:
            pairs = [((str(one), str(other)), float(value), int(n)) for one, other, value, n in content["pairs"]]
            origin = str(content["origin"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Expected `{path}` to hold evidence, but got: {error!r}.") from error
        if not all(math.isfinite(value) and abs(value) <= n for _, value, n in pairs):
            raise ValueError(f"Expected `{path}` to hold sums of correlations, but some are larger than their number.")
        return cls({p: v for p, v, _ in pairs}, {p: n for p, _, n in pairs}, origin)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        pairs = [[*pair, round(self.sums[pair], 4), self.counts[pair]] for pair in sorted(self.sums)]
        lines = ",\n  ".join(json.dumps(pair) for pair in pairs)
        text = f'{{"format": {_FORMAT}, "origin": {json.dumps(self.origin)}, "pairs": [\n  {lines}\n]}}\n'
        write_atomically(Path(path), text)

    def correlation(self, one: str, other: str) -> float:
        """What is known of two columns and what is taken for granted, weighted by targets."""
        if one == other:
            return 1.0
        between = SIZE not in (one, other) and _TRUTH not in (one, other)
        prior = _BELIEFS["size" if SIZE in (one, other) else "between" if between else "scores"]
        pair = (min(one, other), max(one, other))
        count = self.counts.get(pair, 0)
        return (_PRIOR_GROUPS * prior + self.sums.get(pair, 0.0)) / (_PRIOR_GROUPS + count)

    def weights(self, columns: Sequence[str]) -> tuple[dict[str, float], float]:
        """The best combination of some scores without negative weights.

        Args:
            columns: Names of the scores.

        Returns:
            Weight by name, and the share of the variance of the truth that the combination explains.
        """
        from scipy.optimize import nnls

        if not columns:
            return {}, 0.0
        between = np.array([[self.correlation(one, other) for other in columns] for one in columns])
        towards = np.array([self.correlation(name, _TRUTH) for name in columns])
        values, vectors = np.linalg.eigh(between)  # averages over different targets may be no correlations of anything
        root = np.sqrt(np.maximum(values, 0.05))
        weights, _ = nnls((vectors * root).T, (vectors / root).T @ towards)
        explained = float(2 * weights @ towards - weights @ between @ weights)
        return dict(zip(columns, weights.tolist(), strict=True)), min(max(explained, 0.0), _MOST_EXPLAINED)


def _learn_from(table: pd.DataFrame, truth: str) -> Evidence:
    """What one target says."""
    if truth not in table:
        raise ValueError(f"Expected tables with a column {truth!r}, but got {list(table)}.")
    columns = {_TRUTH if name == truth else name: table[name] for name in (truth, *_score_columns(table))}
    signed = {name: signed_scores(name, values.to_numpy(float)) for name, values in columns.items()}
    sums: dict[tuple[str, str], float] = {}
    for pair in combinations(sorted(signed), 2):
        one, other = (signed[name] for name in pair)
        both = np.isfinite(one) & np.isfinite(other)
        if both.sum() >= 3 and np.ptp(one[both]) > 0 and np.ptp(other[both]) > 0:
            sums[pair] = float(np.corrcoef(_normal_scores(one[both]), _normal_scores(other[both]))[0, 1])
    return Evidence(sums, dict.fromkeys(sums, 1))


@cache
def _packaged() -> Evidence:
    return Evidence.load()


def consensus(frame: Any, *, lower_is_better: Iterable[str] = (), evidence: Evidence | None = None) -> pd.DataFrame:
    """Combine scores into the expected rank of each backbone and the probability that it is the best one.

    Each column becomes normal scores (Blom's, of its ranks among the backbones that have it; where standard errors
    stand beside it, of its expected ranks), so that units, scales and sample sizes do not matter. A weighted sum of
    these is the best guess of the accuracy after fine-tuning; how much it leaves open is known from the correlations
    that give the weights (:class:`Evidence`). No weight is negative: a better score never makes a backbone look worse.
    A missing score takes no part, and makes the guess about that backbone less sure; nor does one that is the same for
    all backbones that have it.

    Args:
        frame: One row a backbone: a :class:`~lightning_transfer.screening.Leaderboard`, its ``to_pandas()``, or any
            table whose columns are called like scores, and ``parameters``. Other costs, ranks and texts are passed
            over; ``<score>_se`` is the standard error of a score. Missing values are allowed.
        lower_is_better: Columns where the smallest value wins, beside those that the package knows.
        evidence: Where the weights come from; by default what the package comes with.

    Returns:
        A table in the order of the rows, its index the backbones: ``expected_rank`` (from 1, best),
        ``probability_best`` (they sum to 1) and ``explanation``. ``attrs`` holds ``weights`` of the
        columns that tell backbones apart where all are there, and ``origin`` of these.

    Raises:
        ValueError: If there is no row or no score, a backbone or a column is named twice, a value of a table is
            infinite, or ``lower_is_better`` names no column.

    Example:
        >>> import pandas as pd
        >>> from lightning_transfer.screening import consensus
        >>> scores = pd.DataFrame({"logme": [0.1, 0.3, 0.2], "knn_accuracy": [0.6, 0.9, None]}, index=["a", "b", "c"])
        >>> opinion = consensus(scores)
        >>> opinion["probability_best"].idxmax(), opinion["expected_rank"].idxmax()
        ('b', 'a')
        >>> opinion.loc["c", "explanation"]
        'LogME 2 of 3; not known: kNN accuracy'
    """
    import pandas as pd

    if evidence is not None and not isinstance(evidence, Evidence):
        raise ValueError(f"Expected argument `evidence` to be what a study gives, but got {evidence!r}.")
    known = _packaged() if evidence is None else evidence
    lower = {lower_is_better} if isinstance(lower_is_better, str) else set(lower_is_better)
    its_lower = set(getattr(frame, "lower_is_better", ()))
    if hasattr(frame, "to_pandas"):  # where a leaderboard has an infinite score it has none
        frame = frame.to_pandas().replace([math.inf, -math.inf], math.nan)
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"Expected argument `frame` to be a table or a leaderboard, but got {type(frame).__name__}.")
    if "backbone" in frame:
        frame = frame.set_index("backbone")
    frame = frame.set_axis(list(map(str, frame.columns)), axis=1)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"Expected argument `frame` to hold each column once, but got {twice!r} twice.")
    if unknown := sorted(lower - set(frame.columns)):
        raise ValueError(
            f"Expected argument `lower_is_better` to name columns among {list(frame)}, but got {unknown[0]!r}."
        )
    frame, lower = frame.infer_objects(), lower | its_lower  # tables that are turned around hold objects
    columns = _score_columns(frame)
    if not len(frame) or not columns:
        raise ValueError(f"Expected argument `frame` to hold scores of backbones, but got columns {list(frame)}.")
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise ValueError(f"Expected argument `frame` to hold each backbone once, but got {twice!r} twice.")

    values = {name: _read(frame, name, lower) for name in columns}
    normal = {name: _normal_scores(values[name], _errors(frame, name)) for name in columns}
    means, spreads = np.zeros(len(frame)), np.ones(len(frame))
    parts: list[dict[str, float]] = []
    weigh = cache(known.weights)  # most backbones have the same scores
    telling = [name for name in columns if _varies(values[name])]
    for i in range(len(frame)):
        weights, explained = weigh(tuple(name for name in telling if np.isfinite(values[name][i])))
        parts.append({name: weight * float(normal[name][i]) for name, weight in weights.items()})
        means[i], spreads[i] = sum(parts[i].values()), math.sqrt(1 - explained)
    result = pd.DataFrame(
        {
            "expected_rank": _expected_ranks(means, spreads),
            "probability_best": _probabilities(means, spreads),
            "explanation": [_explain(parts[i], values, columns, i) for i in range(len(frame))],
        },
        index=frame.index,
    )
    result.attrs = {"weights": dict(weigh(tuple(telling))[0]), "origin": known.origin or "equal weights, no study"}
    return result


def _score_columns(frame: pd.DataFrame) -> list[str]:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    names = list(frame.columns)
    errors = {f"{name}_se" for name in (*names, *METRICS)}
    usable = [name for name in names if name not in _NO_SCORES and name not in errors and name != _TRUTH]
    return [
        name
        for name in usable
        if (is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name]) and not is_complex_dtype(frame[name]))
        or frame[name].isna().all()
    ]


def _read(frame: pd.DataFrame, name: str, lower_is_better: Iterable[str]) -> Array:
    values = frame[name].to_numpy(dtype=float, na_value=math.nan)
    if np.isinf(values).any():
        raise ValueError(f"Expected argument `frame` to hold finite scores, but got an infinite one in {name!r}.")
    return _without_rounding(signed_scores(name, values, lower_is_better))


def _varies(values: Array) -> bool:
    present = values[np.isfinite(values)]
    return present.size > 0 and bool((present != present[0]).any())


def _without_rounding(values: Array) -> Array:
    """Scores in which those that rounding tells apart are the same; in any unit."""
    merged, leader = values.copy(), math.nan
    for place in np.argsort(values):
        if not math.isclose(values[place], leader, rel_tol=1e-9):
            leader = float(values[place])
        merged[place] = leader
    return merged


def signed_scores(name: str, values: Array, lower_is_better: Iterable[str] = ()) -> Array:
    """Scores of a column so that higher is better.

    Args:
        name: The column.
        values: Its scores.
        lower_is_better: Columns where the smallest value wins, beside those that the package knows.
    """
    registered = name in METRICS and METRICS[name].metric_class.higher_is_better is False
    return -values if registered or name in LOWER_IS_BETTER or name in lower_is_better else values


def _errors(frame: pd.DataFrame, name: str) -> Array | None:
    column = f"{name}_se"
    if column not in frame:
        return None
    try:
        errors: Array = np.nan_to_num(frame[column].to_numpy(dtype=float, na_value=0.0), posinf=0.0)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected argument `frame` to hold standard errors in {column!r}, but got: {error}."
        ) from error
    if errors.size and errors.min() < 0:
        raise ValueError(f"Expected argument `frame` to hold standard errors in {column!r}, but got {errors.min():g}.")
    return errors


def _normal_scores(values: Array, errors: Array | None = None) -> Array:
    """Quantiles of the normal distribution at the ranks, 0 where a value is missing."""
    from scipy.stats import norm, rankdata

    present = np.isfinite(values)
    scores, count = np.zeros(len(values)), int(present.sum())
    if not count:
        return scores
    ranks = rankdata(values[present])
    if errors is not None and errors.any():
        ranks = count + 1 - _expected_ranks(values[present], np.maximum(errors[present], 1e-300))
    scores[present] = norm.ppf((ranks - 0.375) / (count + 0.25))
    return scores


def _expected_ranks(means: Array, spreads: Array) -> Array:
    from scipy.special import ndtr

    with np.errstate(over="ignore"):
        above = ndtr((means[None, :] - means[:, None]) / np.hypot(spreads[None, :], spreads[:, None]))
    ranks: Array = 0.5 + above.sum(axis=1)  # each is above itself with one half
    return ranks


def _probabilities(means: Array, spreads: Array) -> Array:
    """Of being the largest of independent normal values, by quadrature."""
    from scipy.special import log_ndtr

    steps = (_GRID[None, :] - means[:, None]) / spreads[:, None]
    below = log_ndtr(steps)
    density = np.exp(-0.5 * steps**2 + below.sum(axis=0) - below) / spreads[:, None]
    areas = density.sum(axis=1)
    shares: Array = areas / areas.sum()
    return shares


def _explain(parts: Mapping[str, float], values: Mapping[str, Array], columns: Sequence[str], row: int) -> str:
    """Where the backbone stands by each score that counts, those that count most first."""
    places = []
    for name, _ in sorted(parts.items(), key=lambda part: -abs(part[1])):
        present = values[name][np.isfinite(values[name])]
        places.append(f"{title(name)} {1 + int((present > values[name][row]).sum())} of {len(present)}")
    without: dict[str, list[str]] = {"the same for all": [], "not known": []}
    for name in columns:
        if name not in parts:
            without["the same for all" if np.isfinite(values[name][row]) else "not known"].append(title(name))
    others = [f"{what}: {', '.join(names)}" for what, names in without.items() if names]
    return "; ".join([", ".join(places) or ("no score", "no difference")[bool(without["the same for all"])], *others])
