"""One call of an operation: what is held of it, and the autograd function that runs it."""
