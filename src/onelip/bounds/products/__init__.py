"""Norms of compositions of linear maps, proved as a whole where that is tighter."""
