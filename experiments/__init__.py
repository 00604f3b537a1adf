"""Experiments on real collections: encoders, embedding commands, and what is measured with them."""
