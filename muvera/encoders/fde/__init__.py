"""Fixed Dimensional Encodings: configuration, random matrices, encoder."""
