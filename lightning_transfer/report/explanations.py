"""What a column says, in a sentence for somebody who has not read the paper."""

from __future__ import annotations

from lightning_transfer.metrics.registry import METRICS

_SAID = {
    "logme": "How probable the labels are under a linear model of the features, with its prior chosen for them (nats a "
    "sample and class).",
    "h_score": "How much of the spread of the features lies between the classes: 0 for none, at most classes - 1.",
    "h_score_shrunk": "The H-score with a covariance shrunk towards a sphere, for fewer samples than features.",
    "knn_accuracy": "Share of samples whose nearest neighbours among the others have their class.",
    "ridge_probe": "Leave-one-out accuracy (for targets: R²) of a linear ridge classifier on the features.",
    "leep": "How well the source classes that the network predicts foretell the labels: log-probability, at most 0.",
    "nce": "Minus the uncertainty that remains of the label when the predicted source class is known, at most 0.",
    "linear_mse": "Minus the squared error of the best linear map from features to targets; 0 is perfect.",
    "label_mse": "Minus the squared error of the best linear map from the network's own outputs to the targets.",
    "gbc": "Minus the overlap of the classes, each taken as a Gaussian; 0 where classes lie apart.",
    "gbc_streaming": "GBC of the features as they are, without principal components first.",
    "lfc": "Correlation between samples being alike in features and having the same label, from -1 to 1.",
    "cka": "The same correlation of centred features and one-hot labels, from 0 to 1.",
    "rankme": "Effective number of directions that the features use; reads no labels.",
    "transrate": "Coding rate of the features minus that within the classes: how many bits the labels explain.",
    "sfda": "Mean log-probability of the label under a discriminant after confident samples were made harder.",
    "parc": "Rank correlation between distances of features and distances of labels, times 100.",
    "nleep": "LEEP with clusters of a Gaussian mixture in place of source classes: needs no head.",
    "ncti": "How close the features are to collapsed classes, which is where fine-tuning leads them.",
    "etran": "Energy of the features, and how well a discriminant tells the classes apart; relative to this table.",
    "pactran": "Minus a guarantee for the loss of a softmax head after transfer (PAC-Bayes).",
    "pactran_dirichlet": "PACTran for a table from source classes to labels, with a Dirichlet prior.",
    "pactran_gamma": "PACTran for a table from source classes to labels, with a Gamma prior.",
    "emms": "Minus the error of a linear map from features to embeddings of the class names.",
    "energy": "Mean free energy of the outputs; reads no labels.",
    "task_hardness": "Entropy of the labels: how hard the task is, the same for every backbone.",
    "otce": "How well matching samples of the reference foretell the labels, under optimal transport.",
    "task_relatedness": "Guaranteed upper bound of the target loss of a classifier made from the reference task.",
    "parameters": "Number of weights, and in brackets the place by size: the baseline that a score has to beat.",
    "flops": "Floating point operations for one sample.",
    "feature_dim": "Width of the features.",
    "images_per_second": "Samples that went through the network each second, here.",
    "seconds": "From building the network to its last score.",
    "rank": "Place by the score that ranks. Equal scores share a place; ≈ says that the sample does not tell the row "
    "from the one above it (95 %).",
    "backbone": "The pre-trained network. A control has random weights: what scores like it owes nothing to training.",
}


def explain_column(column: str) -> str:
    """What a column of a leaderboard says.

    Args:
        column: Name of a score or a cost, or ``"rank"``, ``"backbone"``.

    Returns:
        A sentence; of a score without one, the first of its docstring; empty for an unknown column.

    Example:
        >>> from lightning_transfer.report.explanations import explain_column
        >>> explain_column("knn_accuracy")
        'Share of samples whose nearest neighbours among the others have their class.'
    """
    if column in _SAID or column not in METRICS:
        return _SAID.get(column, "")
    return " ".join((METRICS[column].metric_class.__doc__ or "").strip().partition("\n\n")[0].split())
