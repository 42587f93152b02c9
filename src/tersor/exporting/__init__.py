"""Exporting.

A model comes in, a file for a stock runtime goes out, checked against the model; optional runtimes stop
here.
"""
