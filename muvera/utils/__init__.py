"""Atomic files, threads, argument checks, optional imports."""
