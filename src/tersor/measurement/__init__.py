"""Measurement.

Files come in, numbers with units and intervals go out; nothing is chosen here.
"""
