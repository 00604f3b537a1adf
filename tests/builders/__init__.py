"""Builders of inputs that several tests share."""
