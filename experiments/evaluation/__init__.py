"""Metrics of stored results, confidence intervals and summaries."""
