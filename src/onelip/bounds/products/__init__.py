"""Norms of linear maps that follow one another, proved as a whole where that is tighter."""
