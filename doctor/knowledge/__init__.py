"""What is known of releases: their metadata, their symbols, and rules of breakages nobody declares."""
