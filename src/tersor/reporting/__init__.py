"""Reporting.

Records of what was measured come in, documents go out; nothing is computed here but formats.
"""
