"""Distillation.

Outputs of a teacher and a student come in, a loss goes out; nothing is trained here.
"""
