"""Benches: each module measures one thing and has its command."""
