"""What tables, lists and stores may name, and reading files of web servers."""
