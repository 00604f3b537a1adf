"""Builders: what several tests make their inputs with."""
