"""Readers and writers of existing token embeddings, one format a file."""
