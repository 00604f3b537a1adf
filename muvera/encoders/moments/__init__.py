"""Moments of documents: the mean token, the covariance, and their calibration."""
