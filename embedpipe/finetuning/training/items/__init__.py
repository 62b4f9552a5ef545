"""The images or texts that a network is trained and measured on."""
