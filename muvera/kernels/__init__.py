"""Compiled loops over arrays: they use only numba and NumPy, and validate nothing."""
