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
