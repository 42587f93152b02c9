"""Optimizers.

A name and parameters come in, a torch optimizer goes out, or the reason why one was chosen.
"""
