"""One file a kind of input; a class with a name in it is an attack."""
