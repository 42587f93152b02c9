"""Keras 3 models become plain torch modules, checked against the original."""
