"""Other libraries, each in its own environment."""
