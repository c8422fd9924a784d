"""Where the bytes of a blob come from."""
