"""What is said to people and programs: secrets that no message shows, and events as lines of JSON."""
