"""Networks as lists of nodes, whatever file they came in, and the patterns recognised in them."""
