"""Programs that check what onelip proves, and share nothing with it."""
