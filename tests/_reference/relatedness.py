"""Independent versions of what the relatedness package computes, in NumPy and SciPy, written from the papers.

`published_gradients` are the closed forms of the gradients of the objective of the released algorithm; the golden
example is the twelve-point example whose figures were computed once with the official code's formulas.
"""

import numpy as np
from scipy.optimize import linprog
from scipy.special import log_softmax


def golden_example():
    i = np.arange(12)
    features = np.stack([np.sin(i), np.cos(2 * i)], axis=1)
    labels = np.array([0] * 6 + [1] * 3 + [2] * 3)
    weight, bias = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), np.array([0.1, 0.0, -0.1])
    prior = np.array([0.2, 0.3, 0.5])
    label_map = np.array([[0.9, 0.05, 0.1], [0.05, 0.9, 0.1], [0.05, 0.05, 0.8]])
    return features, labels, weight, bias, prior, label_map


def transport_cost(cost, a, b):
    """Optimal transport as a plain linear program."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones((1, m)))
    columns = np.kron(np.ones((1, n)), np.eye(m))
    solved = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    assert solved.status == 0
    return solved.fun


def target_loss(features, labels, matrix, offset, weight, bias, label_map):
    """Mean of ``-log (B softmax(W (G z + g) + c))_y``."""
    log_p = log_softmax((features @ matrix.T + offset) @ weight.T + bias, axis=1)
    p = np.exp(log_p) @ label_map.T
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def bound(reference, target, weight, bias, matrix, offset, label_map, conditional, ground_cost):
    """The three terms, sample by sample and pair by pair. ``"published"``: tau times the distance in all directions."""
    (z, y), (x, t) = reference, target
    mapped = x @ matrix.T + offset
    prior = np.bincount(t, minlength=len(conditional)) / len(t)
    joint = prior[:, None] * conditional
    log_p = log_softmax(z @ weight.T + bias, axis=1)
    losses = -log_p[np.arange(len(y)), y]
    first = sum(joint[:, j].sum() * losses[y == j].mean() for j in range(len(weight)) if joint[:, j].sum() > 0)
    second = -sum(joint[k, j] * np.log(label_map[k, j]) for k, j in zip(*joint.nonzero(), strict=True))
    tau = max(np.linalg.norm(a - b) for a in weight for b in weight)
    third = 0.0
    for k in range(len(conditional)):
        columns = np.flatnonzero(t == k)
        rows = np.flatnonzero(conditional[k][y] > 0)
        mass = np.array([conditional[k, y[i]] / (y == y[i]).sum() for i in rows])
        moved = mapped[columns][None] - z[rows][:, None]
        change = moved @ weight.T
        if ground_cost == "published":
            cost = tau * np.linalg.norm(moved, axis=2)
        elif ground_cost == "feature":
            seen = np.linalg.pinv(weight - weight.mean(0)) @ (weight - weight.mean(0))
            cost = tau * np.linalg.norm(moved @ seen, axis=2)
        elif ground_cost == "logit_range":
            cost = change.max(2) - change.min(2)
        elif ground_cost == "loss":
            p = np.exp(log_softmax(mapped[columns] @ weight.T + bias, axis=1)) @ label_map[k]
            before = losses[rows] - np.log(label_map[k, y[rows]])
            cost = np.maximum(-np.log(p)[None] - before[:, None], 0)
        else:
            cost = change.max(2) - change[..., label_map[k] > 0].min(2)
        third += prior[k] * transport_cost(cost, mass, np.full(len(columns), 1 / len(columns)))
    return first, second, third


def published_gradients(forward, inverse, offset, label_logits, prior_logits, plan, z, y, x, t, losses, target_prior,
                        label_cost, weights):  # fmt: skip
    """Gradients of the released objective in all unknowns, in closed form."""
    w_wd, w_pm, w_ic = weights
    B = np.exp(label_logits - label_logits.max(0))
    B /= B.sum(0)
    D = np.exp(prior_logits - prior_logits.max())
    D /= D.sum()
    r = plan.sum(1)
    F = z @ forward.T + offset
    S, goals = B.T[y], np.eye(len(B))[t]
    identity = np.eye(len(forward))
    E1, E2 = forward @ inverse - identity, inverse @ forward - identity
    e = target_prior - B @ D
    dF = 2 * w_wd * (r[:, None] * F - plan @ x)
    g_forward = dF.T @ z + 2 * w_ic * (E1 @ inverse.T + inverse.T @ E2)
    g_inverse = 2 * w_ic * (forward.T @ E1 + E2 @ forward.T)
    dS = 2 * w_wd * label_cost * (r[:, None] * S - plan @ goals)
    Y = np.eye(B.shape[1])[y]
    g_map = dS.T @ Y - D * (np.log(B) + 1) - 2 * w_pm * np.outer(e, D)
    g_prior = -(B * np.log(B)).sum(0) - 2 * w_pm * B.T @ e + losses
    return {
        "forward": g_forward,
        "inverse": g_inverse,
        "offset": dF.sum(0),
        "label_logits": B * (g_map - (g_map * B).sum(0)),
        "prior_logits": D * (g_prior - g_prior @ D),
    }
