"""Networks in balls around single inputs: the slopes that units can take, and what follows."""
