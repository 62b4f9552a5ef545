"""Helpers for all packages: atomic files, threads, devices, imports, options, progress."""
