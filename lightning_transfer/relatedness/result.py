"""What the solver hands back: figures, transforms, and how far to trust them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_transfer.relatedness.baseline import Baseline
from lightning_transfer.relatedness.bound import Transforms
from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.config import BoundConfig, PublishedSchedule
from lightning_transfer.relatedness.frame import Frame
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.population import smoothed
from lightning_transfer.relatedness.transforms import FeatureMap
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
_RENAMED = {
    "figures": "certificate",
    "fit_figures": "fit",
    "held_out_figures": "held_out",
    "tau_requested": "config.tau",
    "method": "config.method",
    "feature_map_kind": "config.feature_map",
    "level": "config.level",
}


@dataclass(frozen=True)
class TaskRelatednessResult:
    """The task-relatedness bound of a target under a reference; lower is better.

    Attributes:
        certificate: The bound and its parts on the evaluated data: the answer.
        fit: The same on the data that the transforms were learned on.
        evaluated_on: ``"fit data"``, ``"evaluation data"``, or ``"held-out halves"``: figures are then means over both
            halves, each with transforms learned on the other.
        config: What was asked for.
        tau: Certified Lipschitz constant of the head, in nats per unit of the working space: the largest distance
            between two rows of its weight.
        tau_sampled: The published estimate, the largest gradient over the evaluated target: too small for a bound.
        kind: Which candidate won: ``"learned"``, ``"identity map"`` or ``"constant head"``.
        labels_used: ``"given"``, ``"pseudo"`` or ``"kmeans"``; with the latter two the bound is one of the loss on
            these labels, and says nothing certain of the loss on the true ones.
        frame: Standardisation and reduction of both sides, before all else.
        head: Reference classifier in the working space.
        feature_map: Map of target features in the working space.
        label_map: ``B``, shape ``(K_T, K_R)``.
        conditional: Reference classes behind each target class, shape ``(K_T, K_R)``.
        target_prior: ``P_T`` on the evaluated data, shape ``(K_T,)``.
        reference_classes: Ids of the reference classes in use, shape ``(K_R,)``.
        target_classes: Ids of the target classes, shape ``(K_T,)``.
        probe_loss: Loss on the evaluated target of a linear classifier of the target features, fitted on the fit data.
            It is there to compare with: the bound is about ``target_loss``.
        probe_accuracy: Its accuracy.
        ridge: Ridge of the feature map.
        rounds: Alternations made.
        converged: Whether every head fit and every transport problem of the answer met its tolerance.
        history: Bound after each alternation, on the samples that the solver looks at.
        seconds: Wall-clock time.
        messages: What a reader should know, in plain words.
        published: What the published code would have printed (only ``method="published"``).
        standard_error: Standard deviation of the bound over bootstrap resamples, transforms fixed; None if there are no
            resamples. On fit data it does not cover that the transforms were learned on them.
        interval: Normal interval of the bound on the evaluated data, for fixed transforms.
        margin_mismatch: Distribution mismatch of the same transforms under the ground cost ``"logit_margin"``, which is
            a distance; given with baselines, where the ground cost is ``"loss"``, which is none.
        baseline: What random copies of the reference reach; None if none were asked for.
        population_bound: With probability ``config.confidence`` over independent evaluation samples, an upper bound of
            the expected loss of ``classifier`` on new ones (of two halves: of the mean over both classifiers); None if
            it was not asked for. The plain bound is exact, but of these samples only. Halves of one sample are cut
            within classes and so not quite independent draws; ``evaluation=`` can be.
        reference_loss: Held-out loss of a linear classifier of the reference, which no map to the target enters; given
            where the target has no labels, when backbones are ranked by it.
        log_prior: Logarithm of the smoothed class shares of the fit data, shape ``(K_T,)``.
        reference_class_names: Names of the reference classes in use.
        target_class_names: Names of the target classes.
        folds: Results of the halves, each evaluated on the other half; the transforms above are those of the first.
    """

    certificate: Certificate
    fit: Certificate
    evaluated_on: str
    config: BoundConfig
    tau: float
    tau_sampled: float
    kind: str
    labels_used: str
    frame: Frame
    head: SoftmaxHead
    feature_map: FeatureMap
    label_map: Tensor
    conditional: Tensor
    target_prior: Tensor
    reference_classes: Tensor
    target_classes: Tensor
    probe_loss: float
    probe_accuracy: float
    ridge: float
    rounds: int
    converged: bool
    history: tuple[float, ...]
    seconds: float
    messages: tuple[str, ...] = ()
    published: dict[str, float] = field(default_factory=dict)
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    margin_mismatch: float | None = None
    baseline: Baseline | None = None
    population_bound: float | None = None
    reference_loss: float | None = None
    log_prior: Tensor | None = None
    reference_class_names: tuple[str, ...] | None = None
    target_class_names: tuple[str, ...] | None = None
    folds: tuple[TaskRelatednessResult, ...] = ()

    @property
    def bound(self) -> float:
        """The bound on the evaluated data, in nats, rounded outward."""
        return self.certificate.bound

    @property
    def tighter_bound(self) -> float:
        """The form of Theorem 2 of the paper, which is never above :attr:`bound`."""
        return self.certificate.tighter_bound

    @property
    def reweighted_reference_loss(self) -> float:
        """First term of the bound."""
        return self.certificate.reweighted_reference_loss

    @property
    def label_mismatch(self) -> float:
        """Second term of the bound."""
        return self.certificate.label_mismatch

    @property
    def distribution_mismatch(self) -> float:
        """Third term of the bound."""
        return self.certificate.distribution_mismatch

    @property
    def target_loss(self) -> float:
        """Loss of the transformed classifier on the evaluated target; never above :attr:`bound`."""
        return self.certificate.target_loss

    @property
    def target_accuracy(self) -> float:
        """Accuracy of the transformed classifier on the evaluated target."""
        return self.certificate.target_accuracy

    @property
    def held_out(self) -> Certificate | None:
        """The certificate, if its data took no part in learning the transforms; else None."""
        return None if self.evaluated_on == "fit data" else self.certificate

    @property
    def class_prior(self) -> Tensor:
        """``D`` on the evaluated data, shape ``(K_R,)``."""
        return self.joint.sum(0)

    @property
    def learned(self) -> tuple[str, ...]:
        """Which transforms were learned."""
        return tuple(sorted(self.config.learn))

    @property
    def ground_cost(self) -> str:
        """Cost between features."""
        return self.config.ground_cost

    @property
    def joint(self) -> Tensor:
        """Joint mass ``M`` of target and reference classes, shape ``(K_T, K_R)``; rows sum to the target prior."""
        return self.target_prior[:, None] * self.conditional

    if not TYPE_CHECKING:  # a checker shall know the names of today only

        def __getattr__(self, name: str) -> Any:
            if name not in _RENAMED:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            warnings.warn(f"`{name}` of a result is now `{_RENAMED[name]}`.", DeprecationWarning, stacklevel=2)
            return attrgetter(_RENAMED[name])(self)

    @property
    def transforms(self) -> Transforms:
        """The transforms, in the working space."""
        return Transforms(self.head, self.feature_map, self.label_map, self.conditional)

    def log_probabilities(self, target_features: Tensor) -> Tensor:
        """Classify target features with the transformed classifier; of two halves, with the mean of both.

        Args:
            target_features: Raw features, shape ``(n, d)``.

        Returns:
            Log-probabilities of the target classes, shape ``(n, K_T)``, in the order of ``target_classes``.
        """
        if self.folds:
            both = torch.stack([part.log_probabilities(target_features) for part in self.folds])
            return both.logsumexp(0) - math.log(len(self.folds))
        return self.transforms.log_probabilities(self.frame.target(target_features))

    def classifier(self, target_features: Tensor) -> Tensor:
        """Classify with ``(1 - w) B h + w pi``, ``pi`` being the class shares of the fit data, ``w`` 0.02.

        No loss of it is unbounded, so :attr:`population_bound` can be about it.

        Args:
            target_features: Raw features, shape ``(n, d)``.

        Returns:
            Log-probabilities of the target classes, shape ``(n, K_T)``; of two halves, of the mean of both.
        """
        if self.folds:
            both = torch.stack([part.classifier(target_features) for part in self.folds])
            return both.logsumexp(0) - math.log(len(self.folds))
        log_p = self.log_probabilities(target_features)
        return log_p if self.log_prior is None else smoothed(log_p, self.log_prior)

    def certificates(self) -> dict[str, Certificate]:
        """The certificate, and beside one of other data that of the fit data, by what they are of."""
        fit = {} if self.held_out is None else {"fit data": self.fit}
        return {self.evaluated_on: self.certificate, **fit}

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, the label map and the class prior as plain values, ready for JSON."""
        left_out = {"certificate", "fit", "frame", "head", "feature_map", "folds", "log_prior"}
        plain = {
            part.name: _plain(getattr(self, part.name)) for part in fields(self) if part.name not in left_out
        }  # fmt: skip
        return {
            **self.certificate.to_dict(),
            **plain,
            "class_prior": self.class_prior.tolist(),
            "ground_cost": self.ground_cost,
            "learned": list(self.learned),
            "fit": self.fit.to_dict(),
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Export as tensors, to store it or to start the next solve from it; see :meth:`from_state`."""
        state: dict[str, Tensor] = {}
        meta: dict[str, Any] = {"format": FORMAT}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, (Frame, SoftmaxHead, FeatureMap)):
                inner = {f"{part.name}.{key.name}": getattr(value, key.name) for key in fields(value)}
                state.update({key: tensor.clone() for key, tensor in inner.items() if tensor is not None})
            elif isinstance(value, Tensor):
                state[part.name] = value.clone()
            elif part.name == "folds":
                for i, each in enumerate(value):
                    state.update({f"folds.{i}.{key}": tensor for key, tensor in each.state_dict().items()})
            else:
                meta[part.name] = asdict(value) if isinstance(value, (Baseline, BoundConfig, Certificate)) else value
        state["meta"] = torch.tensor(list(json.dumps(meta).encode()), dtype=torch.uint8)
        return state

    @staticmethod
    def from_state(state: dict[str, Tensor]) -> TaskRelatednessResult:
        """Rebuild a result from :meth:`state_dict`, of this version or of 0.1.

        Args:
            state: Tensors by name.

        Returns:
            The result.

        Raises:
            ValueError: If entries are missing, or the format is of a later version.
        """
        try:
            values: dict[str, Any] = json.loads(bytes(state["meta"].cpu().tolist()).decode())
            version = values.pop("format", 0)
            if version > FORMAT:
                raise ValueError(f"Expected argument `state` to be of a format up to {FORMAT}, but got {version}.")
            if not version:
                values = _from_first_format(values, state["target_prior"])
            for name in ("certificate", "fit"):
                values[name] = Certificate.from_dict(values[name])
            if isinstance(values["config"]["schedule"], dict):
                values["config"]["schedule"] = PublishedSchedule(**values["config"]["schedule"])
            values["config"] = BoundConfig(**values["config"])
            if values.get("baseline") is not None:
                values["baseline"] = Baseline.of(values["baseline"])
            for name in ("history", "messages", "interval", "reference_class_names", "target_class_names"):
                values[name] = None if values[name] is None else tuple(values[name])
            for name, kind in (("frame", Frame), ("head", SoftmaxHead), ("feature_map", FeatureMap)):
                inner: dict[str, Any] = {key.name: state.get(f"{name}.{key.name}") for key in fields(kind)}
                values[name] = kind(**inner)
            nested: dict[str, dict[str, Tensor]] = {}
            for key, tensor in state.items():
                if key.startswith("folds."):
                    _, i, rest = key.split(".", 2)
                    nested.setdefault(i, {})[rest] = tensor
            values["folds"] = tuple(TaskRelatednessResult.from_state(nested[i]) for i in sorted(nested))
            for part in fields(TaskRelatednessResult):
                if part.name not in values and part.name in state:
                    values[part.name] = state[part.name]
            return TaskRelatednessResult(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected argument `state` to be a state of a result, but got {sorted(state)}."
            ) from error

    def to(self, device: torch.device | str) -> TaskRelatednessResult:
        """The same result with its tensors on another device."""
        state = {name: tensor.to(device) for name, tensor in self.state_dict().items()}
        return TaskRelatednessResult.from_state(state)

    def with_names(
        self, reference_names: Sequence[str] | None, target_names: Sequence[str] | None
    ) -> TaskRelatednessResult:
        """The same result with names for its classes, which are given by class id."""

        def pick(names: Sequence[str] | None, ids: Tensor) -> tuple[str, ...] | None:
            return None if names is None else tuple(names[i] if i < len(names) else str(i) for i in ids.tolist())

        return replace(
            self,
            folds=tuple(part.with_names(reference_names, target_names) for part in self.folds),
            reference_class_names=pick(reference_names, self.reference_classes),
            target_class_names=pick(target_names, self.target_classes),
        )

    def class_names(self) -> tuple[list[str], list[str]]:
        """Names of the reference and target classes; their ids where they have none."""
        reference, target = self.reference_class_names, self.target_class_names
        return (
            list(reference or map(str, self.reference_classes.tolist())),
            list(target or map(str, self.target_classes.tolist())),
        )

    def matches(self) -> list[tuple[str, str, float]]:
        """For each target class, the reference class that stands for it most, and its share."""
        reference, target = self.class_names()
        share, choice = self.conditional.max(dim=1)
        return [(target[k], reference[int(j)], float(share[k])) for k, j in enumerate(choice)]

    def plot(self) -> Figure:
        """Draw the decomposition as stacked bars and the label map as a heat map.

        Returns:
            A matplotlib figure.
        """
        draw: Callable[[TaskRelatednessResult], Figure] = import_module("lightning_transfer.report.bound").draw_bound
        return draw(self)

    def __str__(self) -> str:
        rows = [
            ("re-weighted reference loss", "reweighted_reference_loss"),
            ("label mismatch", "label_mismatch"),
            ("distribution mismatch", "distribution_mismatch"),
            ("bound", "bound"),
            ("bound, tighter form", "tighter_bound"),
            ("loss of the transformed classifier", "target_loss"),
            ("accuracy of the transformed classifier", "target_accuracy"),
        ]
        if self.labels_used != "given":
            rows[-1] = ("agreement with the labels that were found", "target_accuracy")
        columns = self.certificates()
        lines = [" " * 41 + "".join(f"{name:>17}" for name in columns)]
        lines += [
            f"{title:<41}" + "".join(f"{getattr(each, key):17.4f}" for each in columns.values()) for title, key in rows
        ]
        lines.insert(4, "-" * len(lines[0]))
        further = ""
        if self.interval is not None:
            low, high = self.interval
            further = f"bound {self.bound:.4f}, {self.config.level:.0%} interval {low:.4f} to {high:.4f}"
        matches = ", ".join(plain(f"{target} <- {reference}") for target, reference, _ in self.matches()[:12])
        if self.margin_mismatch is not None:
            further += f"\ndistribution mismatch as a distance (logit_margin): {self.margin_mismatch:.4f}"
        if self.baseline is not None:
            further += f"\nrelatedness: {self.baseline}{self.baseline.remark(self.certificate.guessing)}"
        if self.population_bound is not None:
            found = "" if self.labels_used == "given" else ", on labels found the same way,"
            confidence = self.config.confidence or 0.0
            further += f"\nloss on new samples{found} at most {self.population_bound:.4f} ({confidence:.0%} confidence)"
        if self.reference_loss is not None:
            further += f"\nheld-out loss of a classifier of the reference: {self.reference_loss:.4f}"
        notes = [
            further.strip(),
            f"linear probe of the target: loss {self.probe_loss:.4f}, "
            f"accuracy {self.probe_accuracy:.4f}; guessing costs {self.certificate.guessing:.4f}"
            f"{': the bound is vacuous' if self.certificate.vacuous else ''}",
            f"tau {self.tau:.4g} (certified by the rows of the head; requested {self.config.tau}, "
            f"largest gradient on samples {self.tau_sampled:.4g}), ground cost {self.ground_cost}",
            f"method {self.config.method}, learned {', '.join(self.learned) or 'nothing'}, "
            f"{self.config.feature_map if 'features' in self.learned else 'identity'} feature map, "
            f"answer: {self.kind}, target labels: {self.labels_used}",
            f"{self.certificate.num_reference} reference and {self.certificate.num_target} target samples, "
            f"{len(self.reference_classes)} reference and {len(self.target_classes)} target classes, "
            f"{'converged' if self.converged else 'NOT converged'}, "
            f"{self.seconds:.2f} s",
            f"label map: {matches}{', ...' if len(self.target_classes) > 12 else ''}",
            *(f"published code: {name} {value:.4f}" for name, value in self.published.items()),
            *(f"note: {message}" for message in self.messages),
        ]
        return "\n".join(["Task-relatedness bound (nats, lower is better)", *lines, *(note for note in notes if note)])


def _plain(value: Any) -> Any:
    """Turn tensors, tuples and configs into lists and dicts."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (Baseline, BoundConfig)):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _from_first_format(values: dict[str, Any], target_prior: Tensor) -> dict[str, Any]:
    """Bring the plain values of a state that version 0.1 wrote into today's form."""
    guessing = float(torch.special.entr(target_prior).sum())
    options = {
        "tau": values["tau_requested"],
        "ground_cost": values["ground_cost"],
        "method": values["method"],
        "transforms": values["learned"],
        "feature_map": values["feature_map_kind"],
        "level": values["level"],
    }
    kept = {part.name for part in fields(TaskRelatednessResult)} & set(values)
    return {
        **{name: values[name] for name in kept},
        "certificate": {**values["figures"], "guessing": guessing},
        "fit": {**values["fit_figures"], "guessing": guessing},
        "config": {**asdict(BoundConfig()), **options},
    }
