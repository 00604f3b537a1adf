"""Build the bundled demo sample."""
