"""nydusd for Python: mounts RAFS container images and fetches their data when it is read."""
