"""Plain NumPy, SciPy and scikit-learn versions of the scores of features with class ids, written from the papers.

They form every matrix that the formulas name, loop over classes and pairs, and take labels 0 .. c - 1.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler


def reference_transrate(features, labels, eps=1e-4, weighted=True):
    z = features - features.mean(axis=0)

    def rate(rows):
        n, d = rows.shape
        return 0.5 * np.linalg.slogdet(np.eye(d) + rows.T @ rows / (n * eps))[1]

    rates = [rate(z[labels == c]) for c in np.unique(labels)]
    return rate(z) - np.average(rates, weights=np.bincount(labels) if weighted else None)


def reference_gbc(features, labels, covariance="spherical", pca_dim=64, floor=1e-4, official=False):
    if pca_dim is not None and features.shape[1] > pca_dim:
        features = PCA(min(pca_dim, len(features)), svd_solver="full").fit_transform(features)
    d = features.shape[1]
    if not official:
        floor = floor * features.var(axis=0).mean()
    gaussians = []
    for c in np.unique(labels):
        rows = features[labels == c]
        variance = np.maximum(rows.var(axis=0), floor)
        if covariance == "spherical":
            variance = np.full(d, variance.mean())
        gaussians.append((rows.mean(axis=0), variance))
    total = 0.0
    for a, (mean_a, var_a) in enumerate(gaussians):
        for b, (mean_b, var_b) in enumerate(gaussians):
            if a != b:
                average = np.diag((var_a + var_b) / 2)
                delta = mean_a - mean_b
                logs = [np.linalg.slogdet(m)[1] for m in (average, np.diag(var_a), np.diag(var_b))]
                log_ratio = logs[0] - (logs[1] + logs[2]) / 2
                if covariance == "spherical" and official:
                    log_ratio /= d
                total -= np.exp(-delta @ np.linalg.solve(average, delta) / 8 - log_ratio / 2)
    return total


def _lda(features, labels, shrinkage):
    """Posterior of the discriminant by the generalised eigenproblem of Fisher."""
    d = features.shape[1]
    priors = np.bincount(labels) / len(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(len(priors))])
    within = sum(p * np.cov(features[labels == c].T, bias=True).reshape(d, d) for c, p in enumerate(priors))
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
    total = np.cov(features.T, bias=True).reshape(d, d)
    total = (1 - shrinkage) * total + shrinkage * np.trace(total) / d * np.eye(d)
    vectors = scipy.linalg.eigh(total - shrunk, shrunk)[1]
    weights = means @ vectors @ vectors.T
    return scipy.special.softmax(features @ weights.T - 0.5 * (weights * means).sum(1) + np.log(priors), axis=1)


def _whitened_lda(features, labels):
    """Coordinates and posterior of the discriminant without shrinkage, in the directions with variance within classes.

    As scikit-learn's solver "svd" does since 1.9; before, it divided by n - classes where all others divide by n.
    """
    priors = np.bincount(labels) / len(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(len(priors))])
    residuals = features - means[labels]
    spread = residuals.std(axis=0)
    spread[spread == 0] = 1
    _, lengths, directions = np.linalg.svd(residuals / spread / np.sqrt(len(labels)), full_matrices=False)
    kept = lengths > 1e-4
    whitening = (directions[kept] / spread).T / lengths[kept]
    centre = priors @ means
    centres = (means - centre) @ whitening
    _, lengths, directions = np.linalg.svd(centres * np.sqrt(priors)[:, None], full_matrices=False)
    rotation = directions[lengths > 1e-4 * lengths[0]].T
    projected, centres = (features - centre) @ whitening @ rotation, centres @ rotation
    logits = projected @ centres.T - (centres**2).sum(axis=1) / 2 + np.log(priors)
    return projected, scipy.special.softmax(logits, axis=1)


def _strength(features, labels, power_steps=None):
    d = features.shape[1]
    within = sum(
        (labels == c).mean() * np.cov(features[labels == c].T, bias=True).reshape(d, d) for c in np.unique(labels)
    )
    if power_steps is None:
        largest = np.linalg.eigvalsh(within)[-1]
    else:
        x = within.sum(axis=1)
        for _ in range(power_steps):
            y = within @ x / np.linalg.norm(within @ x)
            x = within @ y / np.linalg.norm(within @ y)
        largest = x @ within @ y
    return max(np.exp(-5 * largest), 1e-10)


def reference_sfda(features, labels, official=False):
    shrinkage = _strength(features, labels, 3 if official else None)
    own = np.arange(len(labels)), labels
    confidence = scipy.special.softmax(_lda(features, labels, shrinkage), axis=1)[own][:, None]
    means = np.stack([features[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    others = np.stack([np.delete(means, c, axis=0).mean(axis=0) for c in range(len(means))])
    mixed = confidence * features + (1 - confidence) * others[labels]
    posterior = _lda(mixed, labels, shrinkage)[own]
    return posterior.mean() if official else np.log(posterior).mean()


def reference_parc(features, annotations, pca_dim=None):
    if pca_dim is not None:
        features = PCA(pca_dim, svd_solver="full").fit_transform(features)
    upper = np.triu_indices(len(features), 1)
    distances = [1 - np.corrcoef(rows)[upper] for rows in (StandardScaler().fit_transform(features), annotations)]
    return 100 * scipy.stats.spearmanr(distances[0].round(10), distances[1].round(10))[0]


def reference_ncti_parts(features, labels, pca_dim=64):
    pca = PCA(min(pca_dim, np.linalg.matrix_rank(features - features.mean(axis=0))), svd_solver="full")
    reduced = pca.fit_transform(features)
    shrinkage = max(np.exp(-pca.explained_variance_[:32].sum()), 1e-10)
    if shrinkage == 1e-10:
        projected, posterior = _whitened_lda(reduced, labels)
    else:
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
        projected = lda.fit_transform(reduced, labels)
        posterior = lda.predict_proba(reduced)
    return {
        "seli": np.linalg.norm(projected - projected.mean(axis=0), ord="nuc"),
        "ncc": posterior[np.arange(len(labels)), labels].mean(),
        "variability": np.log(sum(np.linalg.norm(posterior[labels == c], ord="nuc") for c in np.unique(labels))),
    }


def reference_etran_parts(features, labels, official=False):
    energy = np.sort(scipy.special.logsumexp(features, axis=1))
    own = np.arange(len(labels)), labels
    if official:
        energy = energy[: max(1, len(energy) * 5 // 1000)]
        means = np.stack([features[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
        distances = ((features[:, None] - means) ** 2).sum(axis=2)
        posterior = scipy.special.softmax(np.log(np.bincount(labels) / len(labels)) - distances / 2, axis=1)
    else:
        posterior = _lda(features, labels, _strength(features, labels))
    return {"energy": energy.mean(), "fit": posterior[own].mean()}


def reference_etran_regression(features, targets):
    coefficients = np.linalg.lstsq(features, targets, rcond=None)[0]
    return -((features @ coefficients - targets) ** 2).mean()


def reference_pactran(features, labels, lambda_factor, variance_factor, official):
    """The bound, lower is better."""
    x = features - features.mean(axis=0)
    n, d = x.shape
    one_hot = np.eye(labels.max() + 1)[labels]
    c = one_hot.shape[1]
    penalty = lambda_factor * n

    def loss(theta):
        w, b = theta[: d * c].reshape(d, c), theta[d * c :]
        log_probs = scipy.special.log_softmax(x @ w + b, axis=1)
        slope = (np.exp(log_probs) - one_hot) / n
        value = -(one_hot * log_probs).sum() / n + (w**2).sum() / (2 * penalty)
        return value, np.concatenate([(x.T @ slope + w / penalty).ravel(), slope.sum(axis=0)])

    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-9}
    fit = scipy.optimize.minimize(loss, np.zeros(d * c + c), jac=True, method="L-BFGS-B", options=options)
    probs = scipy.special.softmax(x @ fit.x[: d * c].reshape(d, c) + fit.x[d * c :], axis=1)
    hessian = (x**2).T @ (probs * (1 - probs))  # diagonal, summed over samples
    if official:
        total = hessian.sum() + d * c / penalty + (probs * (1 - probs)).sum()
        inside = total * penalty / (d * c)
    else:
        inside = 1 + hessian.sum() / n * penalty / (d * c)
    return fit.fun + 0.5 * d * c / penalty * variance_factor / d * np.log(inside)


def reference_pactran_dirichlet(probs, labels, alpha=1.0):
    """The bound in nats a sample, lower is better."""
    one_hot = np.eye(labels.max() + 1)[labels]
    prior = np.repeat((alpha * one_hot.mean(axis=0))[:, None], probs.shape[1], axis=1)
    q = probs
    for _ in range(10):
        posterior = prior + one_hot.T @ q
        expected = scipy.special.digamma(posterior) - scipy.special.digamma(posterior.sum(axis=0))
        q = scipy.special.softmax(np.log(probs) + one_hot @ expected, axis=1)

    def log_beta(counts):
        return scipy.special.gammaln(counts).sum() - scipy.special.gammaln(counts.sum(axis=0)).sum()

    return -(log_beta(posterior) - log_beta(prior) - (q * np.log(q / probs)).sum()) / len(labels)


def reference_pactran_gamma(probs, labels, alpha=1.0):
    """The bound in nats a sample, lower is better."""
    one_hot = np.eye(labels.max() + 1)[labels]
    prior = np.repeat((alpha * one_hot.mean(axis=0))[:, None], probs.shape[1], axis=1)
    q = probs
    for _ in range(10):
        posterior = prior + one_hot.T @ q
        q = scipy.special.softmax(np.log(probs) + one_hot @ scipy.special.digamma(posterior), axis=1)
    rate = np.log(probs @ posterior.sum(axis=0))
    weights = scipy.special.gammaln(prior).sum() - scipy.special.gammaln(posterior).sum()
    return (weights + (q * np.log(q / probs)).sum() + rate.sum()) / len(labels)


def reference_lfc(features, labels):
    kernel = features @ features.T
    same = np.where(labels[:, None] == labels, 1.0, -1.0)
    kernel, same = kernel - kernel.mean(), same - same.mean()
    return (kernel * same).sum() / (np.linalg.norm(kernel) * np.linalg.norm(same))


def reference_emms(features, embeddings, eps=0.0):
    """Minus the squared error summed over all entries."""
    n, width, k = embeddings.shape
    f = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-8)
    y = (embeddings - embeddings.mean(axis=0)) / (embeddings.std(axis=0) + eps)
    w = np.linalg.lstsq(f, y.mean(axis=2), rcond=None)[0]
    free = np.linalg.lstsq(y.reshape(n * width, k), (f @ w).ravel(), rcond=None)[0]
    threshold = scipy.optimize.brentq(lambda t: np.maximum(free - t, 0).sum() - 1, free.min() - 1, free.max())
    return -((f @ w - y @ np.maximum(free - threshold, 0)) ** 2).sum()


def reference_cka(features, labels):
    """Alignment of the centred kernels of samples, both formed."""
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    centring = np.eye(len(labels)) - 1 / len(labels)
    kernel = centring @ features @ features.T @ centring
    classes = centring @ (labels[:, None] == labels).astype(np.float64) @ centring
    return (kernel * classes).sum() / np.sqrt((kernel**2).sum() * (classes**2).sum())


def reference_rankme(features, eps=1e-7):
    """Exponential of the entropy of the shares of the singular values, with scipy."""
    values = scipy.linalg.svdvals(np.asarray(features, np.float64))
    return np.exp(scipy.special.entr(values / values.sum() + eps).sum())
