"""Atomic files, threads, checks of arguments, optional imports."""
