"""Documents of a fleet of captures."""
