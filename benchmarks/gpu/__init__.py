"""What one GPU makes of exact search, as a share of what its memory and its matrix units allow."""
