"""Recovery.

A model and batches come in, a trained model goes out; the length of training is the caller's choice. The
given model and the teacher are never changed here, unless the caller says `in_place`.
"""
