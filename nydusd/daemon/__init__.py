"""One process with a life: puts the parts together."""
