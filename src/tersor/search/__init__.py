"""Search.

A Task and a limit come in, a Result goes out; every room above is used, none is duplicated.
"""
