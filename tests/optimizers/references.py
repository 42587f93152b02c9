"""Update rules in float64 NumPy, written from their formulas, one array at a time."""

import numpy as np


def sgd(w, grads, *, lr, momentum=0.9, nesterov=True, weight_decay=0.0):
    m = None
    for g in grads:
        g = g + weight_decay * w
        m = g.copy() if m is None else momentum * m + g
        w = w - lr * (g + momentum * m if nesterov and momentum else m)
    return w


def adam(w, grads, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        g = g + weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def adamw(w, grads, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        w = w * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def rmsprop(w, grads, *, lr, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0):
    v, m = np.zeros_like(w), np.zeros_like(w)
    for g in grads:
        g = g + weight_decay * w
        v = alpha * v + (1 - alpha) * g**2
        m = momentum * m + g / (np.sqrt(v) + eps)
        w = w - lr * m
    return w


def adagrad(w, grads, *, lr, lr_decay=0.0, initial=0.0, eps=1e-10, weight_decay=0.0):
    s = np.full_like(w, initial)
    for t, g in enumerate(grads):
        g = g + weight_decay * w
        s = s + g**2
        w = w - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + eps)
    return w


def lion(w, grads, *, lr, beta1=0.9, beta2=0.99, weight_decay=0.0):
    m = np.zeros_like(w)
    for g in grads:
        w = (1 - lr * weight_decay) * w - lr * np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
    return w


def nadamw(w, grads, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        w = w * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        ahead = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        w = w - lr * ahead / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def adafactor(w, grads, *, lr, decay=-0.8, eps=1e-3, clip=1.0, weight_decay=0.0):
    tiny = np.finfo(np.float64).eps
    row = col = full = 0.0
    rms = lambda x: np.sqrt((x**2).mean())
    for t, g in enumerate(grads, 1):
        rest = t**decay
        size = max(eps, rms(w)) * min(lr, t**-0.5)
        w = w * (1 - lr * weight_decay)
        if g.ndim > 1:
            row = (1 - rest) * row + rest * (g**2).mean(-1, keepdims=True)
            col = (1 - rest) * col + rest * (g**2).mean(-2, keepdims=True)
            v = row * col / np.maximum(row.mean(-2, keepdims=True), tiny)
        else:
            v = full = (1 - rest) * full + rest * g**2
        u = g / np.sqrt(np.maximum(v, tiny**2))
        w = w - size * u / max(1.0, rms(u) / clip)
    return w


def muon(w, grads, *, lr, momentum=0.95, steps=5, weight_decay=0.01):
    if w.ndim < 2:
        return adamw(w, grads, lr=lr, weight_decay=weight_decay)
    m = np.zeros_like(w)
    for g in grads:
        m = momentum * m + (1 - momentum) * g
        x = ((1 - momentum) * g + momentum * m).reshape(len(w), -1)
        rows, columns = x.shape
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(steps):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        w = (1 - lr * weight_decay) * w - 0.2 * np.sqrt(max(rows, columns)) * lr * x.reshape(w.shape)
    return w


def schedule_free(w, grads, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """Returns y, where the parameters are while training."""
    x, z, v = w.copy(), w.copy(), np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        y = (1 - beta1) * z + beta1 * x
        v = beta2 * v + (1 - beta2) * g**2
        z = z - lr * (g / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * y)
        x = (1 - 1 / t) * x + z / t
    return (1 - beta1) * z + beta1 * x


def prodigy(starts, series, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, d0=1e-6):
    """All parameters together, since they share one estimate."""
    ws = [w.copy() for w in starts]
    zeros = lambda: [np.zeros_like(w) for w in starts]
    m, v, s, d, r = zeros(), zeros(), zeros(), d0, 0.0
    for grads in zip(*series, strict=True):
        r *= np.sqrt(beta2)
        weight = d / d0 * d * lr
        for i, g in enumerate(grads):
            r += weight * float((g * (starts[i] - ws[i])).sum())
            m[i] = beta1 * m[i] + (1 - beta1) * d * g
            v[i] = beta2 * v[i] + (1 - beta2) * d**2 * g**2
            s[i] = np.sqrt(beta2) * s[i] + weight * g
        new = max(d, r / sum(np.abs(x).sum() for x in s))
        for i in range(len(ws)):
            ws[i] = ws[i] * (1 - d * lr * weight_decay) - d * lr * m[i] / (np.sqrt(v[i]) + new * eps)
        d = new
    return ws
