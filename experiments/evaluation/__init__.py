"""Metrics of stored results, their intervals and summaries."""
