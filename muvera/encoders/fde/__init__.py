"""Fixed Dimensional Encodings: configuration, random draws, encoder."""
