"""The engine of experiments: configurations, measuring, the files of a run."""
