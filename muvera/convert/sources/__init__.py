"""Classes that yield token vectors in batches."""
