"""One self-contained HTML page of a run: plots, tables, what was run and on what."""
