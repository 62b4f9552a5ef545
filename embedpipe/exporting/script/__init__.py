"""The script of an exported folder: written from these modules and those of `embedpipe.decoding`."""
