"""Adapters: an index of texts behind the interfaces of the frameworks that people use."""
