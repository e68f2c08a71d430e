"""Steps, loops, optimisers and checkpoints."""
