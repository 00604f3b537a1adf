"""Experiments on real collections: embedding, systems, measurements and reports."""
