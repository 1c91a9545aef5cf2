"""Runs that train a generator of images against a proved critic."""
