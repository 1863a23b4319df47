"""trace.dat: the container (versions 6 and 7) and the ring buffer pages in it."""
