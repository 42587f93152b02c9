"""Certification.

A base, frozen finalists and sealed data come in, a claim that holds or is refused goes out.
"""
