"""Interpreters of operators: forward mode, vmap, and where reverse-mode transformations begin and end."""
