"""Surgery.

A model and a Plan come in, a new model goes out; the given one is never changed.
"""
