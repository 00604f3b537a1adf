"""Replacements for other libraries: change the import and keep the program."""
