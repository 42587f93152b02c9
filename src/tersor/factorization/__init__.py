"""Factorization.

Weights come in, Factorize edits go out; no layer is built here.
"""
