"""Compiled loops over arrays: numba and NumPy only, no validation, nothing else of muvera."""
