"""Geometry of token vectors, and recall of encoders on them."""
