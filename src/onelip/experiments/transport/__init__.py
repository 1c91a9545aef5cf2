"""Runs that bound a Wasserstein distance from below."""
