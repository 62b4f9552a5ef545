"""Where networks and weights come from: one file or folder for each library or format."""
