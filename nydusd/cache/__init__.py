"""Blob bytes kept on local disk; what is missing is fetched."""
