"""Character-level language models: Markov chains beside recurrent networks."""
