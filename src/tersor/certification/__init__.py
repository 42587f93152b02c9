"""Certification.

What comes in: a base, at most eight frozen finalists, and sealed data. What goes out: a claim that holds or is
refused, with everything needed to recompute it. What never happens here: choosing between candidates, or reading
the sealed data without a line in the ledger.
"""
