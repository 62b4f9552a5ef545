"""Where rows are embedded: in this process, or by workers of a Ray cluster."""
