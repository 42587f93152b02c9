"""Fuzzing of everything that opens a file or reads a word of the user's."""
