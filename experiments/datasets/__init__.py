"""Collections: texts, the encoders that embed them, and token embeddings to measure with."""
