"""An electrocardiogram as recorded: what an RNN knows of the next sample."""
