"""The training of a network: data, optimizer, loop, resume, several processes, its page."""
