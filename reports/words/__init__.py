"""Words: the sentences of the documents, filled with numbers of the tables."""
