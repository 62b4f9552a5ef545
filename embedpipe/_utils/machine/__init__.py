"""What the machine allows this process: cores and memory; and what its files are."""
