"""Pruning.

Evidence and groups come in, Cut and Mask edits go out; no layer class is known here.
"""
