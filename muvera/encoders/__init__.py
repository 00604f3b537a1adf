"""Encoders: token sets to single vectors whose inner product approximates Chamfer similarity."""
