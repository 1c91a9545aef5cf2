"""Runs of every kind, from their settings to records, figures and tables."""
