"""Every public function refuses every wrong kind of argument, in words of its own."""
