"""Independent versions of the moment-based scores: dense NumPy, SciPy and scikit-learn, written from the papers."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.optimize
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LinearRegression, Ridge


def class_mean_rows(features, labels):
    """Every sample replaced by the mean of its class."""
    rows = np.empty_like(features)
    for label in np.unique(labels):
        rows[labels == label] = features[labels == label].mean(0)
    return rows


def reference_h_score(features, labels):
    """Bao et al., eq. 4: trace of pinv(cov(f)) cov(E[f | y])."""
    covariance = np.cov(features, rowvar=False, bias=True)
    between = np.cov(class_mean_rows(features, labels), rowvar=False, bias=True)
    return np.trace(np.linalg.pinv(covariance, rcond=1e-12, hermitian=True) @ between)


def reference_canonical_correlations(features, labels):
    """The same as the sum of squared canonical correlations between features and one-hot classes."""
    one_hot = (labels[:, None] == np.unique(labels)).astype(float)[:, 1:]
    model = CCA(n_components=one_hot.shape[1], max_iter=5000, tol=1e-12).fit(features, one_hot)
    left, right = model.transform(features, one_hot)
    return sum(np.corrcoef(left[:, i], right[:, i])[0, 1] ** 2 for i in range(one_hot.shape[1]))


def reference_shrunk_h_score(features, labels, strength=None):
    """Ibrahim et al.: the covariance shrunk by scikit-learn's Ledoit-Wolf strength, or a given one."""
    centred = features - features.mean(0)
    d = features.shape[1]
    strength = LedoitWolf(assume_centered=True).fit(centred).shrinkage_ if strength is None else strength
    covariance = centred.T @ centred / len(features)
    shrunk = (1 - strength) * covariance + strength * np.trace(covariance) / d * np.eye(d)
    means = class_mean_rows(centred, labels)
    return np.trace(np.linalg.solve(shrunk, (1 - strength) * means.T @ means / len(features)))


def evidence(features, column, alpha, beta):
    """Log density of a column under N(0, F F^T / alpha + I / beta), in nats a sample."""
    covariance = features @ features.T / alpha + np.eye(len(features)) / beta
    factor = scipy.linalg.cho_factor(covariance, lower=True)
    log_determinant = 2 * np.log(np.diag(factor[0])).sum()
    fit = column @ scipy.linalg.cho_solve(factor, column)
    return -0.5 * (fit + log_determinant + len(column) * np.log(2 * np.pi)) / len(column)


def reference_logme(features, columns):
    """LogME by maximising the dense Gaussian evidence over both precisions with a generic optimiser."""
    best = []
    for column in columns.T:
        starts = [(a, b) for a in (-6.0, -2.0, 2.0, 6.0) for b in (-2.0, 1.0, 4.0)]
        values = [
            scipy.optimize.minimize(
                lambda p, column=column: -evidence(features, column, np.exp(p[0]), np.exp(p[1])), start,
                method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000},
            ).fun
            for start in starts
        ]  # fmt: skip
        best.append(-min(values))
    return np.mean(best)


def reference_linear_mse(features, targets, regularization):
    """Nguyen et al., definition 4.1: penalised error of the fitted map, summed over outputs."""
    n = len(features)
    model = Ridge(alpha=n * regularization) if regularization else LinearRegression()
    model.fit(features, targets)
    error = ((targets - model.predict(features)) ** 2).sum() / n
    return -(error + regularization * (np.atleast_2d(model.coef_) ** 2).sum())


def reference_leave_one_out(features, responses, penalty):
    """Predictions for each sample of a ridge fitted without it, one fit a sample."""
    predictions = np.empty_like(responses)
    for i in range(len(features)):
        others = np.arange(len(features)) != i
        centre, level = features[others].mean(0), responses[others].mean(0)
        design = features[others] - centre
        gram = design.T @ design + penalty * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, design.T @ (responses[others] - level))
        predictions[i] = level + (features[i] - centre) @ weights
    return predictions
