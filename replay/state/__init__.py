"""State: what was when, as the events tell: lives of VMAs, anon_vmas and links, in one total order."""
