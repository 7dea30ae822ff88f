"""Which published scores order models better than their size does?

Reads the tables of tests/_fixtures/public_tables (10 ImageNet CNNs on 8 data sets: fine-tuning accuracies, the scores
that two public benchmarks printed for them, parameter counts) and prints, with intervals, chance levels and p-values,

1. the weighted Kendall tau (rank=True) of every estimator on every data set,
2. the means over data sets beside the static baseline (parameter count),
3. how much single models carry: the range of the means with one model left out,
4. the means with the largest models taken away.

Columns "MS ..." are Model-Spider's. In the other source two columns of DTD are wrong as printed: h_score exceeds its
limit of 46 and nce repeats logme. With --coverage it measures instead how often the intervals hold the true value for
normal scores and accuracies.

    python benchmarks/ranking.py [--resamples 2000] [--seed 0] [--output ranking.json] [--coverage]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_transfer.screening.ranking import RankingTable, evaluate_over_targets, evaluate_ranking

TABLES = Path(__file__).parent.parent / "tests" / "_fixtures" / "public_tables"
MODELS = {
    "googlenet": "GoogleNet",
    "inception_v3": "Inception V3",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "Densenet201",
    "mobilenet_v2": "MobileNet V2",
    "mnasnet1_0": "MNasNet",
}
DATASETS = {"Cars": "StanfordCars", "Pet": "OxfordIIITPets"}
STATISTICS = [
    "weighted_kendall",
    "kendall",
    "spearman",
    "pearson",
    "rel_at_1",
    "rel_at_3",
    "recall_at_3",
    "top1_regret",
]


def read_tables() -> tuple[dict[str, pd.DataFrame], dict[str, pd.Series], pd.Series]:
    """Return scores and accuracies by data set, and parameter counts, all in the same order of models."""
    thuml = pd.read_csv(TABLES / "thuml_scores_and_accuracy.csv").set_index(["dataset", "model"])
    spider = pd.read_csv(TABLES / "model_spider_scores.csv")
    spider["dataset"] = spider.Dataset.replace(DATASETS)
    spider["model"] = spider.Model.map(MODELS)
    spider = spider.set_index(["dataset", "model"]).drop(columns=["Dataset", "Model"]).add_prefix("MS ")
    parameters = pd.read_csv(TABLES / "torchvision_parameters.csv").set_index("model").parameters
    both = thuml.join(spider)
    if both.isna().any(axis=None):
        raise RuntimeError("The tables do not hold the same models and data sets.")
    scores, accuracies = {}, {}
    for dataset, table in both.groupby(level="dataset"):
        table = table.droplevel("dataset").loc[parameters.index]
        accuracies[dataset] = table.finetune_accuracy
        scores[dataset] = table.drop(columns="finetune_accuracy")
    return scores, accuracies, parameters


def flagged(entry) -> str:
    """A value with a mark where chance reaches it in fewer than 5 % of orders."""
    return f"{entry.value:+.2f}{'*' if entry.p_value < 0.05 else ' '}"


def show(title: str, frame: pd.DataFrame) -> None:
    """Print one table."""
    print(f"\n{title}\n")
    print(frame.to_string())


def means(table: RankingTable, name: str) -> pd.DataFrame:
    """The means of one statistic with everything that helps to judge them."""
    rows = {}
    for entry in (s for s in table.statistics if s.name == name):
        left_out = [value for value in entry.leave_one_out if value is not None]
        rows[entry.estimator] = {
            "mean": f"{entry.value:+.3f}",
            "95 % interval": f"[{entry.lower:+.3f}, {entry.upper:+.3f}]",
            "null sd": f"{entry.null_std:.3f}",
            "p": f"{entry.p_value:.4f}",
            "over size": "" if entry.baseline is None else f"{entry.baseline.advantage:+.3f}",
            "its interval": ""
            if entry.baseline is None
            else f"[{entry.baseline.lower:+.3f}, {entry.baseline.upper:+.3f}]",
            "one left out": f"[{min(left_out):+.3f}, {max(left_out):+.3f}]",
            "carried by": entry.most_influential,
        }
    return pd.DataFrame(rows).T


def measure_coverage(seed: int, draws: int = 400) -> pd.DataFrame:
    """How often the 95 % intervals hold the population value of bivariate normal scores and accuracies."""
    rng = np.random.default_rng(seed)
    rows = []
    for n, correlation in itertools.product((6, 10, 20), (0.0, 0.5, 0.8)):
        truth = {"pearson": correlation, "kendall": 2 / np.pi * np.arcsin(correlation)}
        held, width = Counter(), Counter()
        for _ in range(draws):
            x = rng.normal(size=n)
            y = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=n)
            for interval in ("bootstrap", "jackknife"):
                table = evaluate_ranking(x, y, statistics=list(truth), interval=interval, num_resamples=500)
                for entry in table.statistics:
                    held[entry.name, interval] += entry.lower <= truth[entry.name] <= entry.upper
                    width[entry.name, interval] += entry.upper - entry.lower
        for name, interval in held:
            rows.append(
                {
                    "models": n,
                    "correlation": correlation,
                    "statistic": name,
                    "interval": interval,
                    "coverage": held[name, interval] / draws,
                    "mean width": width[name, interval] / draws,
                }
            )
    frame = pd.DataFrame(rows)
    return frame.pivot(index=["models", "correlation"], columns=["statistic", "interval"]).round(3)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap draws and permutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write all entries as JSON here")
    parser.add_argument("--coverage", action="store_true", help="measure the coverage of the intervals instead")
    arguments = parser.parse_args()
    if arguments.coverage:
        show("Coverage and mean width of 95 % intervals, 400 draws", measure_coverage(arguments.seed))
        return
    scores, accuracies, parameters = read_tables()
    options = {"parameters": parameters, "num_resamples": arguments.resamples, "seed": arguments.seed}
    models = list(parameters.index)

    single = {
        dataset: evaluate_ranking(scores[dataset], accuracies[dataset], models=models, statistics=STATISTICS, **options)
        for dataset in scores
    }
    by_dataset = {
        dataset: {s.estimator: flagged(s) for s in table.statistics if s.name == "weighted_kendall"}
        for dataset, table in single.items()
    }
    show("1. Weighted Kendall tau (rank=True) by data set; * marks p < 0.05, uncorrected", pd.DataFrame(by_dataset))

    pooled = evaluate_over_targets(scores, accuracies, models=models, statistics=STATISTICS, **options)
    for name in ("weighted_kendall", "pearson", "rel_at_1", "top1_regret"):
        show(f"2, 3. Mean {name} over {len(scores)} data sets", means(pooled, name))

    by_size = parameters.sort_values().index
    ablation = {}
    for removed in range(5):
        kept = [model for model in models if model in set(by_size[: len(models) - removed])]
        table = evaluate_over_targets(
            {dataset: frame.loc[kept] for dataset, frame in scores.items()},
            {dataset: column.loc[kept] for dataset, column in accuracies.items()},
            models=kept,
            statistics=["weighted_kendall"],
            **{**options, "parameters": parameters.loc[kept]},
        )
        ablation[f"-{removed}"] = {s.estimator: flagged(s) for s in table.statistics}
    show("4. Mean weighted Kendall tau without the 0 to 4 largest models", pd.DataFrame(ablation))

    if arguments.output:
        tables = {**single, "mean": pooled}
        records = {name: json.loads(table.to_pandas().to_json(orient="records")) for name, table in tables.items()}
        arguments.output.write_text(json.dumps(records, indent=1) + "\n")
        print(f"\nAll entries are in {arguments.output}.")


if __name__ == "__main__":
    main()
