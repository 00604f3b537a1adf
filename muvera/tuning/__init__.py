"""From documents, and queries where there are any, to the configuration that suits them."""
