"""Vectors learnt from a sample of documents, and their encoder."""
