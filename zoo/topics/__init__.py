"""Topics: documents as counts of words, each a mixture of distributions over the vocabulary."""
