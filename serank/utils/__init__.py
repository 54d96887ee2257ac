"""Helpers that know of no frame and no network."""
