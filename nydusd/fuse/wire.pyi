SIZES: dict[str, tuple[int, int]]
