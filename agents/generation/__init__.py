"""New rows out of samples: who makes them, and which of them can be used."""
