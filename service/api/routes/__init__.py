"""Thin: HTTP in, a call to the core, HTTP out."""
