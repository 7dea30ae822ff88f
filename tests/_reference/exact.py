"""The scores by their definitions in 60 digits, for samples of any rank, scale and origin.

Features are taken as the exact numbers that their float64 values are. Directions are counted as present where their
singular value is above 1e-8 of the largest one, so that what rounding has left of a dependent column is none.
"""

from __future__ import annotations

from functools import lru_cache

import mpmath as mp
import numpy as np

mp.mp.dps = 60
RANK = mp.mpf("1e-8")


def _matrix(array):
    return mp.matrix(np.asarray(array, dtype=float).tolist())


def _dot(a, b):
    return mp.fdot(a, b)


def _centred(rows):
    """Rows of numbers less their mean, and the mean."""
    n = len(rows)
    mean = [mp.fsum(row[j] for row in rows) / n for j in range(len(rows[0]))]
    return [[value - m for value, m in zip(row, mean, strict=True)] for row in rows], mean


def _rows(array):
    return [[mp.mpf(float(value)) for value in row] for row in np.asarray(array, dtype=float)]


def _basis(columns, scale=True):
    """Orthonormal basis of the span of vectors, by Gram-Schmidt with the longest remaining vector first."""
    norms = [mp.sqrt(_dot(c, c)) for c in columns]
    largest = max(norms)
    if largest == 0:
        return []
    work = [
        [v / norm for v in c] if scale else list(c)
        for c, norm in zip(columns, norms, strict=True)
        if norm > largest * mp.mpf("1e-13")
    ]
    basis = []
    start = max(mp.sqrt(_dot(c, c)) for c in work)
    while work:
        lengths = [mp.sqrt(_dot(c, c)) for c in work]
        longest = max(range(len(work)), key=lengths.__getitem__)
        if lengths[longest] <= start * RANK:
            break
        unit = [v / lengths[longest] for v in work.pop(longest)]
        basis.append(unit)
        work = [[v - p * u for v, u in zip(c, unit, strict=True)] for c in work for p in (_dot(c, unit),)]
    return basis


def _columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def _indicators(labels):
    n = len(labels)
    return [
        [mp.mpf(int(label == c)) - mp.mpf(int((labels == c).sum())) / n for label in labels] for c in np.unique(labels)
    ]


def _left_over(column, basis):
    rest = list(column)
    for unit in basis:
        p = _dot(rest, unit)
        rest = [v - p * u for v, u in zip(rest, unit, strict=True)]
    return _dot(rest, rest)


@lru_cache(maxsize=64)
def _spectrum_of(data, shape):
    z, mean = _centred(_rows(np.frombuffer(data).reshape(shape)))
    n, d = shape
    small = n <= d
    square = mp.matrix(min(n, d))
    vectors = z if small else _columns(z)
    for i in range(len(vectors)):
        for j in range(i + 1):
            square[i, j] = square[j, i] = _dot(vectors[i], vectors[j])
    values, axes = mp.eigsy(square)
    order = sorted(range(len(vectors)), key=lambda k: -values[k])
    kept = [k for k in order if values[k] > RANK**2 * values[order[0]] and values[order[0]] > 0]
    lengths = [mp.sqrt(values[k]) for k in kept]
    first = [[axes[i, k] for i in range(len(vectors))] for k in kept]
    across = _columns(z) if small else z
    second = [[_dot(row, axis) / s for row in across] for axis, s in zip(first, lengths, strict=True)]
    return z, mean, lengths, *((first, second) if small else (second, first))


def spectrum(features):
    """Centred rows, mean, singular values, left vectors and right vectors, by the smaller matrix of squares."""
    features = np.ascontiguousarray(features, dtype=float)
    return _spectrum_of(features.tobytes(), features.shape)


def exact_h_score(features, labels, shrinkage=None):
    z, _, lengths, left, _ = spectrum(features)
    n, d = np.shape(features)
    if shrinkage is None:
        basis = _basis(_columns(z))
        return mp.fsum(
            _dot(c, unit) ** 2 / _count(labels, k) for k, c in enumerate(_indicators(labels)) for unit in basis
        )
    squares = [s**2 for s in lengths]
    total = mp.fsum(squares) / n
    if total == 0:
        return mp.mpf(0)
    if shrinkage == "ledoit_wolf":
        covariance = mp.fsum(v**2 for v in squares) / n**2
        fourth = mp.fsum(_dot(row, row) ** 2 for row in z)
        shrinkage = min(mp.mpf(1), max(mp.mpf(0), (fourth / n - covariance) / n / (covariance - total**2 / d)))
    if shrinkage == 1:
        return mp.mpf(0)
    shrunk = [(1 - shrinkage) * v / n + shrinkage * total / d for v in squares]
    between = [
        [_dot(c, unit) * s / mp.sqrt(_count(labels, k)) for unit, s in zip(left, lengths, strict=True)]
        for k, c in enumerate(_indicators(labels))
    ]
    return (1 - shrinkage) / n * mp.fsum(b**2 / v for row in between for b, v in zip(row, shrunk, strict=True))


def _count(labels, position):
    return int((labels == np.unique(labels)[position]).sum())


def exact_lfc(features, labels):
    x = _rows(features)
    n = len(x)

    def doubly_centred(kernel):
        mean = mp.fsum(v for row in kernel for v in row) / n**2
        return [[v - mean for v in row] for row in kernel]

    kernel = doubly_centred([[_dot(a, b) for b in x] for a in x])
    same = doubly_centred([[mp.mpf(1 if a == b else -1) for b in labels] for a in labels])
    square = mp.fsum(v**2 for row in kernel for v in row)
    if square <= (max(abs(v) for row in x for v in row) ** 2 * n) ** 2 * mp.mpf("1e-28"):
        return mp.mpf(0)
    product = mp.fsum(_dot(a, b) for a, b in zip(kernel, same, strict=True))
    return product / mp.sqrt(square * mp.fsum(v**2 for row in same for v in row))


def exact_linear_mse(features, targets, regularization=0):
    _, _, lengths, left, _ = spectrum(features)
    columns = _columns(_centred(_rows(targets))[0])
    n = len(columns[0])
    if not regularization:
        basis = _basis(_columns(spectrum(features)[0]))
        return -mp.fsum(_left_over(c, basis) for c in columns) / n
    penalty = n * mp.mpf(regularization)
    error = mp.fsum(_left_over(c, left) for c in columns)
    error += mp.fsum(
        _dot(c, u) ** 2 * penalty / (s**2 + penalty) for c in columns for u, s in zip(left, lengths, strict=True)
    )
    return -error / n


def exact_emms(features, columns):
    """With one embedding of each sample, which is standardised."""
    basis = _basis(_columns(spectrum(features)[0]))
    columns = _columns(_centred(_rows(columns))[0])
    shares = [_left_over(c, basis) / _dot(c, c) for c in columns if _dot(c, c) > 0]
    return -mp.fsum(shares) / len(columns)


def exact_logme(features, columns):
    _, mean, lengths, left, right = spectrum(features)
    n = len(features)
    along = [_dot(mean, v) for v in right]
    outside = _left_over(mean, right)
    if outside <= (RANK * 1000) ** 2 * _dot(mean, mean):
        outside = mp.mpf(0)
    squares = [s**2 for s in lengths]
    total = mp.mpf(0)
    for column in _columns(_rows(columns)):
        average = mp.fsum(column) / n
        centred = [v - average for v in column]
        coordinates = [_dot(centred, u) for u in left]
        rest = _left_over(centred, left) if len(left) < n - 1 else mp.mpf(0)
        rest = max(rest, 0)

        def evidence(log_t, rest=rest, coordinates=coordinates, average=average):
            t = mp.exp(log_t)
            pull = 1 + n * (mp.fsum(a**2 / (t + s) for a, s in zip(along, squares, strict=True)) + outside / t)
            slope = mp.fsum(a * c * mp.sqrt(s) / (t + s) for a, c, s in zip(along, coordinates, squares, strict=True))
            fit = rest + mp.fsum(c**2 * t / (t + s) for c, s in zip(coordinates, squares, strict=True))
            fit += n * (average - slope) ** 2 / pull
            volume = mp.fsum(mp.log1p(s / t) for s in squares) + mp.log(pull)
            return (mp.log(n / fit) - 1 - mp.log(2 * mp.pi) - volume / n) / 2

        low = mp.log(min([*squares, mp.mpf(1)])) - 20
        high = mp.log(max([*squares, n * _dot(mean, mean), mp.mpf(1)])) + 20
        grid = mp.linspace(low, high, 160)
        with mp.workdps(20):
            values = [evidence(t) for t in grid]
        best = max(range(len(grid)), key=values.__getitem__)
        a, b = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        ratio = (mp.sqrt(5) - 1) / 2
        with mp.workdps(30):
            for _ in range(60):
                c, d = b - ratio * (b - a), a + ratio * (b - a)
                a, b = (a, d) if evidence(c) > evidence(d) else (c, b)
        total += evidence((a + b) / 2)
    return total / np.shape(columns)[1]


def exact_etran_regression(features, targets):
    """Minus the mean square of what projection on the columns of the features, as they are, leaves."""
    _, mean, lengths, left, right = spectrum(features)
    n = len(features)
    outside = _left_over(mean, right)
    spans_constant = outside > (RANK * 1000) ** 2 * _dot(mean, mean)
    error = mp.mpf(0)
    columns = _columns(_rows(targets))
    for column in columns:
        average = mp.fsum(column) / n
        centred = [v - average for v in column]
        error += _left_over(centred, left)
        if not spans_constant:
            slope = [_dot(mean, v) / s for v, s in zip(right, lengths, strict=True)]
            missed = average - mp.fsum(b * _dot(centred, u) for b, u in zip(slope, left, strict=True))
            error += n * missed**2 / (1 + n * _dot(slope, slope))
    return -error / (n * len(columns))


def exact_transrate(features, labels, eps=1e-4):
    z = spectrum(features)[0]
    n = len(z)

    def rate(rows):
        small = mp.matrix(len(rows))
        for i in range(len(rows)):
            for j in range(i + 1):
                small[i, j] = small[j, i] = _dot(rows[i], rows[j]) / (len(rows) * mp.mpf(eps)) + (i == j)
        factor = mp.cholesky(small)
        return mp.fsum(mp.log(factor[i, i]) for i in range(len(rows)))

    members = [[row for row, label in zip(z, labels, strict=True) if label == c] for c in np.unique(labels)]
    return rate(z) - mp.fsum(len(rows) * rate(rows) for rows in members) / n


def exact_gbc(features, labels, floor=1e-4):
    """Of diagonal Gaussians, without principal components."""
    z = spectrum(features)[0]
    n, d = len(z), len(z[0])
    least = mp.mpf(floor) * mp.fsum(_dot(row, row) for row in z) / (n * d)
    gaussians = []
    for c in np.unique(labels):
        rows, mean = _centred([row for row, label in zip(z, labels, strict=True) if label == c])
        gaussians.append((mean, [max(_dot(column, column) / len(rows), least) for column in _columns(rows)]))
    total = mp.mpf(0)
    for a, (mean_a, var_a) in enumerate(gaussians):
        for b, (mean_b, var_b) in enumerate(gaussians):
            if a != b:
                terms = zip(mean_a, mean_b, var_a, var_b, strict=True)
                total -= mp.exp(
                    -mp.fsum(
                        (m - k) ** 2 / (v + w) / 4 + mp.log((v + w) ** 2 / (4 * v * w)) / 4 for m, k, v, w in terms
                    )
                )
    return total


def _discriminant(rows, labels, num_features, strength=None):
    """Log-posterior of each sample and class with the shrinkage of SFDA, and its strength."""
    n = len(rows)
    classes = np.unique(labels)
    z = _centred(rows)[0]
    means = [_centred([row for row, label in zip(z, labels, strict=True) if label == c])[1] for c in classes]
    own = np.searchsorted(classes, labels)
    residuals = [[v - m for v, m in zip(row, means[k], strict=True)] for row, k in zip(z, own, strict=True)]
    columns = _columns(residuals)
    within = mp.matrix(len(columns))
    for i in range(len(columns)):
        for j in range(i + 1):
            within[i, j] = within[j, i] = _dot(columns[i], columns[j]) / n
    values, vectors = mp.eigsy(within)
    if strength is None:
        strength = max(mp.exp(-5 * max(values)), mp.mpf("1e-10"))
    size = mp.fsum(values)
    shrunk = [(1 - strength) * max(v, 0) + strength * size / num_features for v in values]
    axes = [[vectors[i, k] / mp.sqrt(shrunk[k]) for i in range(len(columns))] for k in range(len(columns))]
    x = [[_dot(row, axis) for axis in axes] for row in z]
    m = [[_dot(row, axis) for axis in axes] for row in means]
    logits = [
        [
            _dot(row, mean) - _dot(mean, mean) / 2 + mp.log(mp.mpf(int((labels == c).sum())) / n)
            for mean, c in zip(m, classes, strict=True)
        ]
        for row in x
    ]
    largest = [max(row) for row in logits]
    norms = [mp.log(mp.fsum(mp.exp(v - top) for v in row)) + top for row, top in zip(logits, largest, strict=True)]
    return [[v - norm for v in row] for row, norm in zip(logits, norms, strict=True)], strength, z, means, own


def exact_etran_fit(features, labels):
    logs, _, _, _, own = _discriminant(_reduced(features), labels, np.shape(features)[1])
    return mp.fsum(mp.exp(row[k]) for row, k in zip(logs, own, strict=True)) / len(own)


def exact_sfda(features, labels):
    rows, d = _reduced(features), np.shape(features)[1]
    logs, strength, z, means, own = _discriminant(rows, labels, d)
    mixed = []
    for row, x, k in zip(logs, z, own, strict=True):
        odds = [mp.exp(mp.exp(v)) for v in row]
        confidence = odds[k] / mp.fsum(odds)
        others = [mp.fsum(mean[j] for c, mean in enumerate(means) if c != k) / (len(means) - 1) for j in range(len(x))]
        mixed.append([confidence * v + (1 - confidence) * o for v, o in zip(x, others, strict=True)])
    logs = _discriminant(mixed, labels, d, strength)[0]
    return mp.fsum(row[k] for row, k in zip(logs, own, strict=True)) / len(own)


def _reduced(features):
    """Centred samples along their right vectors: what is invariant to rotation needs no more."""
    _, _, lengths, left, _ = spectrum(features)
    return [[s * u[i] for s, u in zip(lengths, left, strict=True)] for i in range(len(features))]


def exact_ridge_probe(features, targets, regularization):
    """R2 of the probes fitted without each sample."""
    z, _, lengths, left, _ = spectrum(features)
    n, d = len(z), len(z[0])
    ridge = mp.mpf(regularization) * mp.fsum(s**2 for s in lengths) / d
    shares = [s**2 / (s**2 + ridge) for s in lengths]
    leverage = [mp.mpf(1) / n + mp.fsum(w * u[i] ** 2 for w, u in zip(shares, left, strict=True)) for i in range(n)]
    scores = []
    for column in _columns(_centred(_rows(targets))[0]):
        fitted = [mp.fsum(w * _dot(column, u) * u[i] for w, u in zip(shares, left, strict=True)) for i in range(n)]
        press = mp.fsum(((y - f) / (1 - h)) ** 2 for y, f, h in zip(column, fitted, leverage, strict=True))
        scores.append(1 - press / (_dot(column, column) * (mp.mpf(n) / (n - 1)) ** 2))
    return mp.fsum(scores) / len(scores)
