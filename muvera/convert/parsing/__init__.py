"""Parsers of foreign files that run no code: pickles, torch files, id maps, rows of stores."""
