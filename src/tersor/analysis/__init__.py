"""Analysis.

A Graph and calibration data come in, Facts go out (cost, evidence, sensitivity); nothing is decided here.
"""
