"""Codecs of token vectors: a few bytes a token instead of its floats, and the similarities of what is coded."""
