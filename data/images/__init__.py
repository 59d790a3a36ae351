"""Users' images: read from folders, tables and arrays, opened as RGB, checked once."""
