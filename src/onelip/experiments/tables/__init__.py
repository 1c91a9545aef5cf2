"""Published tables beside stored runs."""
