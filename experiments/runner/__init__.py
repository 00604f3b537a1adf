"""The study of recall, time and memory: configurations, measuring, results."""
