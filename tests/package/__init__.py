"""What is installed, imported and documented."""
