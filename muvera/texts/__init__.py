"""Texts in, answers out: an index of texts with metadata and filters, and the encoders that read texts."""
