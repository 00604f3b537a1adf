"""Writers of token embeddings and of document vectors."""
