"""How verbs are found and run: groups in the help, and the JSON object of a run."""
