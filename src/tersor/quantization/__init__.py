"""Quantization.

A model and calibration data come in, grids and Quantize edits go out, or a model that computes on those
grids.
"""
