"""Index and search texts, with metadata and filters; text encoders."""
