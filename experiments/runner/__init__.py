"""The experiment runner: configurations, measurements, the files of a run."""
