"""Integers against floating point and against those of others, in stock runtimes."""
