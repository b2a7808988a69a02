"""One module per official source of codes or of knowledge."""
