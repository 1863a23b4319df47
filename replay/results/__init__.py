"""Results: where they go, where they come from, and how they are read again, compared, drawn and exported."""
