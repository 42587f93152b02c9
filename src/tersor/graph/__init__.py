"""Graph.

A model and example inputs come in, a Graph with its Groups goes out; the model is never changed here.
"""
