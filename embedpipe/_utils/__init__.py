"""What every part needs and none owns: whole files, threads, devices, imports, options, progress."""
