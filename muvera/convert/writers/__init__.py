"""Writers of token embeddings, one format a file."""
