"""Vectors learned from a sample of documents, and their encoder."""
