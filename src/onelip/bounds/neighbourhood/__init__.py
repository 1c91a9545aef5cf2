"""Networks in balls around single inputs: intervals of slopes, and the constants that follow."""
