"""Verbs that look for faults and groups in the rows, and that change their values."""
