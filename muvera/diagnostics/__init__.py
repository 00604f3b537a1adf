"""Geometry of token vectors, recall of encoders on them, and calculators of the paper's theorems."""
