"""NCE, LEEP, task hardness, kNN accuracy and F-OTCE in plain NumPy, term by term from the papers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np


def reference_nce(source_labels, labels):
    n = len(labels)
    pairs, sources = Counter(zip(source_labels, labels, strict=True)), Counter(source_labels)
    return sum(count / n * math.log(count / sources[z]) for (z, _), count in pairs.items())


def reference_miller_madow(source_labels, labels):
    pairs, sources = set(zip(source_labels, labels, strict=True)), set(source_labels)
    return (len(pairs) - len(sources)) / (2 * len(labels))


def reference_hardness(labels):
    return -reference_nce([0] * len(labels), labels)


def reference_leep(source_probs, labels):
    source_probs, labels = np.asarray(source_probs, dtype=np.float64), np.asarray(labels)
    n = len(labels)
    total = 0.0
    for i in range(n):
        predicted = 0.0
        for z in range(source_probs.shape[1]):
            mass = source_probs[:, z].sum()
            if mass > 0:
                predicted += source_probs[labels == labels[i], z].sum() / mass * source_probs[i, z]
        total += math.log(predicted)
    return total / n


def reference_knn(features, labels, k, cosine=False):
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if cosine:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for i in range(len(labels)):
        distances = ((features - features[i]) ** 2).sum(axis=1)
        others = [j for j in range(len(labels)) if j != i]
        nearest = sorted(others, key=lambda j: (distances[j], labels[j]))[:k]
        right += np.bincount(labels[nearest]).argmax() == labels[i]
    return right / len(labels)


def reference_transport(cost):
    """Optimal plan of two uniform distributions by linear programming."""
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron, vstack

    m, n = cost.shape
    sums = vstack([kron(eye(m), np.ones((1, n))), kron(np.ones((1, m)), eye(n))])
    shares = np.concatenate([np.full(m, 1 / m), np.full(n, 1 / n)])
    found = linprog(cost.ravel(), A_eq=sums.tocsr(), b_eq=shares, method="highs")
    assert found.status == 0
    return found.x.reshape(m, n)


def reference_otce(source_features, source_labels, features, labels, label_weight=0.0):
    """Transport cost and conditional entropy of the classes."""
    source_labels, labels = np.asarray(source_labels), np.asarray(labels)
    cost = ((np.asarray(source_features)[:, None] - np.asarray(features)[None]) ** 2).sum(axis=2)
    if label_weight:
        between = np.zeros_like(cost)
        for a in set(source_labels):
            for b in set(labels):
                cell = np.ix_(source_labels == a, labels == b)
                between[cell] = (reference_transport(cost[cell]) * cost[cell]).sum()
        cost = (1 - label_weight) * cost + label_weight * between
    plan = reference_transport(cost)
    entropy = 0.0
    for a in set(source_labels):
        of_source = plan[source_labels == a].sum()
        for b in set(labels):
            joint = plan[np.ix_(source_labels == a, labels == b)].sum()
            if joint > 1e-12:
                entropy -= joint * math.log(joint / of_source)
    return (plan * cost).sum(), entropy


def reference_nleep(features, labels, variance=0.8, components_per_class=5, covariance="full", seed=0):
    """N-LEEP through scikit-learn, samples in the order of their first principal component."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    labels = np.asarray(labels)
    projected = PCA(n_components=variance, svd_solver="full").fit_transform(np.asarray(features, dtype=np.float64))
    for column in projected.T:
        column *= np.sign(column[np.abs(column).argmax()])
    order = projected[:, 0].argsort(kind="stable")
    projected /= projected[:, 0].std()
    components = components_per_class * len(set(labels))
    mixture = GaussianMixture(components, covariance_type=covariance, random_state=seed).fit(projected[order])
    return reference_leep(mixture.predict_proba(projected[order]), labels[order])
