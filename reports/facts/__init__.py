"""Facts: what every document says, taken from the result tables once."""
