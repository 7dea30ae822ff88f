"""The studies of the papers: many tasks on shared inputs, their hardness, the choice of a source, a curriculum."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.functional.h_score import Shrinkage, h_score
from lightning_transfer.functional.negative_conditional_entropy import conditional_entropy_matrix
from lightning_transfer.inputs import Task
from lightning_transfer.metrics.registry import METRICS, build_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RankedTable:
    """Names in order, best first, with one or more columns of values.

    Attributes:
        names: Row names.
        columns: Column name to one value for each row; None where a value does not exist.
        ranked_by: The column that gave the order.
    """

    names: tuple[str, ...]
    columns: Mapping[str, tuple[float | None, ...]]
    ranked_by: str

    @property
    def best(self) -> str:
        """Name of the first row."""
        return self.names[0]

    def to_pandas(self) -> pd.DataFrame:
        """Return the table, names as its index."""
        import pandas as pd

        return pd.DataFrame({name: list(values) for name, values in self.columns.items()}, index=list(self.names))


@dataclass(frozen=True)
class TransferabilityMatrix:
    """What :func:`transferability_matrix` gives.

    Attributes:
        values: Shape ``(sources, targets)``, float64, nats; higher is better. Entry ``[s, t]`` is the NCE from source
            ``s`` to target ``t``, plus the log-likelihood of the source where it was given.
        hardness: Label entropy of each target, shape ``(targets,)``, nats.
        source_names: Names of the rows.
        target_names: Names of the columns.
    """

    values: Tensor
    hardness: Tensor
    source_names: tuple[str, ...]
    target_names: tuple[str, ...]

    def normalised(self) -> Tensor:
        """Share of each target's entropy that the source explains, ``1 + NCE / H(Y)``, comparable over targets.

        In [0, 1] for a matrix without log-likelihoods of sources; 1 for a target with a single class.
        """
        return torch.where(self.hardness > 0, 1 + self.values / self.hardness, torch.ones_like(self.values))

    def ranked_sources(self, target: str) -> RankedTable:
        """Rank the sources for one target, itself left out.

        Raises:
            ValueError: If there is no such target.
        """
        column = self.values[:, _position(target, self.target_names, "target")].tolist()
        return _ranked({s: {"nce": v} for s, v in zip(self.source_names, column, strict=True) if s != target}, "nce")

    def ranked_targets(self, source: str) -> RankedTable:
        """Rank the targets for one source, itself left out.

        Raises:
            ValueError: If there is no such source.
        """
        row = self.values[_position(source, self.source_names, "source")].tolist()
        return _ranked({t: {"nce": v} for t, v in zip(self.target_names, row, strict=True) if t != source}, "nce")

    def to_pandas(self) -> pd.DataFrame:
        """Return the matrix with source names as index and target names as columns."""
        import pandas as pd

        return pd.DataFrame(self.values.cpu().numpy(), index=list(self.source_names), columns=list(self.target_names))


def transferability_matrix(
    label_columns: Any,
    source_columns: Any = None,
    *,
    names: Sequence[str] | None = None,
    source_names: Sequence[str] | None = None,
    source_log_likelihood: Tensor | None = None,
    miller_madow: bool = False,
    ignore_index: int | None = None,
) -> TransferabilityMatrix:
    """Transferability between all pairs of tasks that label the same inputs (Tran et al., ICCV 2019, eq. 7 and 10).

    The joint counts of all pairs come from one product of one-hot codes, taken over blocks of rows that fit in memory:
    40 or 312 attributes cost little more than one.

    Args:
        label_columns: One column of class ids a target task: an integer tensor of shape ``(n, t)``, or a mapping or
            DataFrame of named columns.
        source_columns: The same for the source tasks; the targets themselves without.
        names: Names of the target tasks; the columns' own names, or ``"0"``, ``"1"``, ..., without.
        source_names: Names of the source tasks.
        source_log_likelihood: Mean log-likelihood (nats) of each source's own model, shape ``(s,)``; with it
            the entries are the lower bounds of eq. 10 and sources can be compared.
        miller_madow: Correct the leading term of the bias of each entropy. Entries may then leave the plain limits.
        ignore_index: Marks missing labels; a sample counts for the pairs of which it has both.

    Returns:
        The matrix.

    Raises:
        ValueError: If a column is malformed, lengths or names do not match, or a pair of tasks shares no sample.

    Example:
        >>> import torch
        >>> from lightning_transfer.studies import transferability_matrix
        >>> attributes = {"beard": torch.tensor([0, 0, 1, 1]), "male": torch.tensor([0, 1, 1, 1])}
        >>> transferability_matrix(attributes).to_pandas().round(3)
               beard   male
        beard  0.000 -0.347
        male  -0.477  0.000
    """
    targets, target_names = _label_columns(label_columns, names, "label_columns")
    if source_columns is None:
        if source_names is not None:
            raise ValueError("Expected argument `source_names` only beside `source_columns`.")
        sources, found_names = targets, target_names
    else:
        sources, found_names = _label_columns(source_columns, source_names, "source_columns")
    entropies = conditional_entropy_matrix(sources, targets, miller_madow=miller_madow, ignore_index=ignore_index)
    if ignore_index is not None:
        shared = (sources != ignore_index).double().T @ (targets != ignore_index).double()
        if bool((shared == 0).any()):
            s, t = torch.nonzero(shared == 0)[0].tolist()
            raise ValueError(f"Tasks {found_names[s]!r} and {target_names[t]!r} share no labelled sample.")
    values = 0.0 - entropies
    if source_log_likelihood is not None:
        if source_log_likelihood.shape != (len(found_names),) or not bool(source_log_likelihood.isfinite().all()):
            raise ValueError(
                f"Expected argument `source_log_likelihood` to be {len(found_names)} finite numbers, but got "
                f"{source_log_likelihood}."
            )
        values = values + source_log_likelihood.to(values)[:, None]
    hardness = _entropies(targets, miller_madow, ignore_index)
    return TransferabilityMatrix(values, hardness, found_names, target_names)


def rank_hardness(
    label_columns: Any,
    *,
    names: Sequence[str] | None = None,
    miller_madow: bool = False,
    ignore_index: int | None = None,
) -> RankedTable:
    """Rank tasks by their label entropy, easiest first (Tran et al., ICCV 2019, eq. 14).

    The entropy bounds the training loss of the task's best model from above; it needs labels only.

    Args:
        label_columns: As in :func:`transferability_matrix`.
        names: As in :func:`transferability_matrix`.
        miller_madow: As in :func:`transferability_matrix`.
        ignore_index: As in :func:`transferability_matrix`.

    Returns:
        Columns ``hardness`` (nats; higher is harder) and ``num_classes``.

    Raises:
        ValueError: If a column is malformed or names do not match.

    Example:
        >>> import torch
        >>> from lightning_transfer.studies import rank_hardness
        >>> rank_hardness({"even": torch.tensor([0, 1, 0, 1]), "rare": torch.tensor([0, 0, 0, 1])}).names
        ('rare', 'even')
    """
    columns, found_names = _label_columns(label_columns, names, "label_columns")
    hardness = _entropies(columns, miller_madow, ignore_index).tolist()
    rows: dict[str, dict[str, float | None]] = {}
    for name, column, value in zip(found_names, columns.T, hardness, strict=True):
        present = column if ignore_index is None else column[column != ignore_index]
        rows[name] = {"hardness": value, "num_classes": float(len(present.unique()))}
    return _ranked(rows, "hardness", higher_is_better=False)


def normalized_h_score(
    features: Tensor,
    labels: Tensor,
    optimal: Tensor | float,
    *,
    shrinkage: Shrinkage = None,
    ignore_index: int | None = None,
) -> Tensor:
    """H-score of a source's features over that of the target's own best features (Bao et al., ICIP 2019).

    The ratio ``T(S, T) = H_T(f_S) / H_T(f_opt)`` can be compared between targets, which the H-score itself cannot.

    Args:
        features: Features of the target's samples from the source, as in
            :func:`lightning_transfer.functional.h_score`.
        labels: Class ids of the target.
        optimal: Features of the same samples from a model trained on the target itself, or their H-score.
        shrinkage: As in :func:`lightning_transfer.functional.h_score`; for both sides.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64, at least 0; 1 means as good as the target's own features. A value above 1 says that what was handed
        in as optimal is not.

    Raises:
        ValueError: If an input is malformed or the optimum is not a positive finite number.

    Example:
        >>> import torch
        >>> from lightning_transfer.studies import normalized_h_score
        >>> own = torch.tensor([[0.0, 0.1], [1.0, 0.0], [4.0, 0.3], [5.0, 0.2]])
        >>> normalized_h_score(own[:, 1:], torch.tensor([0, 0, 1, 1]), optimal=own)
        tensor(0.8000, dtype=torch.float64)
    """
    score = h_score(features, labels, shrinkage=shrinkage, ignore_index=ignore_index)
    if isinstance(optimal, Tensor) and optimal.ndim > 0:
        optimal = h_score(optimal, labels, shrinkage=shrinkage, ignore_index=ignore_index)
    optimum = float(optimal)
    if not (math.isfinite(optimum) and optimum > 0):
        raise ValueError(f"Expected argument `optimal` to be or to have a positive H-score, but got {optimum}.")
    return score / optimum


def rank_sources(
    sources: Mapping[str, Tensor | Mapping[str, Tensor]],
    *,
    labels: Tensor | None = None,
    targets: Tensor | None = None,
    metrics: str | Iterable[str] = "default",
    rank_by: str = "logme",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> RankedTable:
    """Rank many sources for one target by scores of what each makes of the target's samples.

    Args:
        sources: Source name to its features of the target's samples, shape ``(n, d)``, or to a mapping of inputs as the
            metrics name them (``features``, ``source_probs``, ``source_labels``, ``source_outputs``).
        labels: Class ids ``(n,)``, or attributes ``(n, m)`` of 0 and 1, of the target.
        targets: Regression targets ``(n,)`` or ``(n, m)`` instead.
        metrics: Names of scores, as in :func:`lightning_transfer.metrics.registry.build_metrics`. A source gets those
            that its inputs allow.
        rank_by: The score that gives the order; sources without it come last.
        options: Further arguments of the scores by name.

    Returns:
        One row for each source, one column for each score.

    Raises:
        ValueError: If inputs are malformed, a name is unknown, nothing can be computed, or not exactly one of
            ``labels`` and ``targets`` is given.

    Example:
        >>> import torch
        >>> from lightning_transfer.studies import rank_sources
        >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> labels = (x[:, 1] > 0).long()
        >>> rank_sources({"noise": x[:, :1], "signal": x[:, 1:]}, labels=labels, metrics=["logme", "h_score"]).best
        'signal'
    """
    if (labels is None) == (targets is None):
        raise ValueError("Expected exactly one of the arguments `labels` and `targets`.")
    if not sources:
        raise ValueError("Expected argument `sources` to hold at least one source, but got none.")
    task: Task = "regression" if labels is None else "multilabel" if labels.ndim == 2 else "classification"
    truth = {"targets": targets} if labels is None else {"labels": labels}
    rows: dict[str, dict[str, float | None]] = {}
    for name, inputs in sources.items():
        given = {"features": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        collection = build_metrics(metrics, task=task, available=tuple(given), options=options)
        collection.update(**given, **truth)
        rows[str(name)] = {metric: float(value) for metric, value in collection.compute().items()}
    if not any(rank_by in row for row in rows.values()):
        raise ValueError(f"Expected argument `rank_by` to name a score that was computed, but got {rank_by!r}.")
    metric = METRICS[rank_by].build(task, **(options or {}).get(rank_by, {}))  # a variant may turn the sign
    return _ranked(rows, rank_by, higher_is_better=metric.higher_is_better is not False)


@dataclass(frozen=True)
class Curriculum:
    """What :func:`transfer_curriculum` gives.

    Attributes:
        order: The tasks in the order to learn them; every task comes after the one that it starts from.
        parents: Task to the task that it starts from, None where it is learned from scratch.
        transferability: Task to the transferability from its parent (or from scratch).
        cost: Sum of ``1 - transferability`` over the tasks, the least possible.
    """

    order: tuple[str, ...]
    parents: Mapping[str, str | None]
    transferability: Mapping[str, float]
    cost: float


def transfer_curriculum(
    transferability: Any, *, names: Sequence[str] | None = None, from_scratch: float | Sequence[float] = 0.0
) -> Curriculum:
    """Decide which task to learn from which, and in which order (Bao et al., ICIP 2019: task transfer curriculum).

    The tasks and a virtual root (nothing learned yet) are the nodes of a graph whose edge from ``S`` to ``T`` weighs
    ``1 - T(S, T)``; the curriculum is its arborescence of least weight (Edmonds' algorithm), read breadth first, the
    cheapest child first. networkx needs about 0.1 s for 40 tasks, 2 s for 100 and a minute or more for 300, less where
    few edges beat learning from scratch.

    Args:
        transferability: Shape ``(k, k)``, entry ``[s, t]`` from task ``s`` to task ``t``, best on a scale where 1 is
            perfect: :meth:`TransferabilityMatrix.normalised` or a matrix of :func:`normalized_h_score`. The diagonal is
            not read.
        names: Names of the tasks; ``"0"``, ``"1"``, ... without.
        from_scratch: Transferability of the root: what learning without a source is worth on the same scale, for all
            tasks or one by one. Edges that do worse are never used.

    Returns:
        The curriculum.

    Raises:
        ValueError: If the matrix is not square and finite off its diagonal, or names or ``from_scratch`` do not match.

    Example:
        >>> from lightning_transfer.studies import transfer_curriculum
        >>> matrix = [[1.0, 0.9, 0.2], [0.8, 1.0, 0.7], [0.1, 0.3, 1.0]]
        >>> plan = transfer_curriculum(matrix, names=["a", "b", "c"], from_scratch=0.1)
        >>> plan.order, dict(plan.parents)
        (('a', 'b', 'c'), {'a': None, 'b': 'a', 'c': 'b'})
    """
    import networkx as nx

    matrix = torch.as_tensor(transferability, dtype=torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"Expected argument `transferability` to be a square matrix, but got {tuple(matrix.shape)}.")
    k = len(matrix)
    if not bool((matrix.isfinite() | torch.eye(k, dtype=torch.bool)).all()):
        raise ValueError("Expected argument `transferability` to be finite off its diagonal.")
    task_names = _names(names, k, "names")
    roots = torch.as_tensor(from_scratch, dtype=torch.float64)
    if roots.ndim > 1 or roots.numel() not in (1, k) or not bool(roots.isfinite().all()):
        raise ValueError(f"Expected argument `from_scratch` to be one finite number or {k}, but got {from_scratch!r}.")
    scratch = roots.expand(k).tolist()

    graph = nx.DiGraph()
    for target in range(k):
        graph.add_edge(-1, target, weight=1 - scratch[target])
        for source, value in enumerate(matrix[:, target].tolist()):
            if source != target and value > scratch[target]:
                graph.add_edge(source, target, weight=1 - value)
    tree = nx.minimum_spanning_arborescence(graph)
    queue, order = [-1], []
    for node in queue:
        children = sorted(tree.successors(node), key=lambda child: (tree[node][child]["weight"], child))
        order += children
        queue += children
    parents = {child: next(iter(tree.predecessors(child))) for child in order}
    gained = {child: 1 - tree[parents[child]][child]["weight"] for child in order}
    return Curriculum(
        order=tuple(task_names[child] for child in order),
        parents={task_names[child]: None if parents[child] < 0 else task_names[parents[child]] for child in order},
        transferability={task_names[child]: gained[child] for child in order},
        cost=sum(1 - value for value in gained.values()),
    )


def _entropies(columns: Tensor, miller_madow: bool, ignore_index: int | None) -> Tensor:
    # given a source that never varies, the conditional entropy is the entropy (eq. 13 of Tran et al.)
    constant = torch.full((len(columns), 1), 1 if ignore_index == 0 else 0, device=columns.device)
    return conditional_entropy_matrix(constant, columns, miller_madow=miller_madow, ignore_index=ignore_index)[0]


def _label_columns(columns: Any, names: Sequence[str] | None, argument: str) -> tuple[Tensor, tuple[str, ...]]:
    if hasattr(columns, "items"):
        labels: list[Hashable] = [name for name, _ in columns.items()]
        try:
            tensors = [c if isinstance(c, Tensor) else torch.as_tensor(np.array(c)) for _, c in columns.items()]
            columns = torch.stack(tensors, dim=1)
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"Expected argument `{argument}` to hold columns of equal length: {error}.") from error
        names = [str(name) for name in labels] if names is None else names
    if not isinstance(columns, Tensor) or columns.ndim != 2:
        shape = tuple(columns.shape) if isinstance(columns, Tensor) else type(columns).__name__
        raise ValueError(f"Expected argument `{argument}` to be a 2D integer tensor or named columns, but got {shape}.")
    return columns, _names(names, columns.shape[1], argument)


def _names(names: Sequence[str] | None, count: int, argument: str) -> tuple[str, ...]:
    labels = tuple(str(i) for i in range(count)) if names is None else tuple(map(str, names))
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"Expected {count} different names of tasks for `{argument}`, but got {labels}.")
    return labels


def _position(name: str, names: Sequence[str], argument: str) -> int:
    if name not in names:
        raise ValueError(f"Expected argument `{argument}` to be one of {tuple(names)}, but got {name!r}.")
    return names.index(name)


def _ranked(
    rows: Mapping[str, Mapping[str, float | None]], ranked_by: str, higher_is_better: bool = True
) -> RankedTable:
    sign = -1.0 if higher_is_better else 1.0

    def position(name: str) -> float:
        value = rows[name].get(ranked_by)
        return math.inf if value is None else sign * value

    names = tuple(sorted(rows, key=position))
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    return RankedTable(names, {c: tuple(rows[name].get(c) for name in names) for c in columns}, ranked_by)
