"""Text encoders: models that turn texts into token vectors, behind one protocol."""
