"""Transforms of token vectors between a source and its target: pooling, normalization, narrowing."""
