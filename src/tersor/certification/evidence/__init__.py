"""Evidence.

Per-sample outcomes of a base and a candidate come in, a p-value against "the drop is at least the margin" goes
out; nothing here reads data, files or the ledger.
"""
