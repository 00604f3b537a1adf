"""Damaged and hostile files for every reader, read in child processes with limits."""
