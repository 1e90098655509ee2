"""Labelled images: where they are from (source), how they are divided (split)."""
