"""Attempts to break readers and indexes: hostile files, threads, kills, random changes."""
