"""Find the encoder that suits a collection."""
