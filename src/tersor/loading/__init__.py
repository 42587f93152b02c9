"""Loading.

References and objects come in, a Task goes out (model, four splits, metric, loss, inputs); nothing is
trained here.
"""
