"""What the machine allows this process: cores and memory."""
