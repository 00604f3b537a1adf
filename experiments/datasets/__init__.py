"""Collections: texts, the models that embed them, and token embeddings."""
