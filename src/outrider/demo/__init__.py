"""`outrider demo`: two networks, a service, a group of UEs on the move, and an independent verdict."""
