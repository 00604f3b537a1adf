"""Metadata of documents: the values JSON can hold, and the filter language over them."""
