"""Recovery.

A model and batches come in, a trained model goes out; the length of training is the caller's choice.
"""
