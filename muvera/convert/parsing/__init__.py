"""Parsers of foreign files that run no code."""
