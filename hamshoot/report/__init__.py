"""A result as one page to show to a colleague: figures, sentences, no request to anywhere."""
