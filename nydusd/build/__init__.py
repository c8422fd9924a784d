"""nydus-image: builds and checks images; there is no daemon in it."""
