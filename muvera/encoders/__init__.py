"""Encoders: turn token sets into single vectors whose inner product approximates Chamfer similarity."""
