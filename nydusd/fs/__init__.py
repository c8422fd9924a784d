"""File systems behind one interface, and the table of mounts."""
