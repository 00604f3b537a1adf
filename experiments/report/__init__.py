"""A run as one self-contained HTML page: plots, tables, configurations and machine."""
