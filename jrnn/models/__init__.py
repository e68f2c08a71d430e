"""Models, one per file: a cell and a head together, and Markov chains beside them."""
