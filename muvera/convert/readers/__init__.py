"""Readers: each module lists the formats it opens in ``READERS``."""
