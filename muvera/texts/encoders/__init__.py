"""Text encoders: models that turn texts into sets of token vectors, behind one protocol."""
