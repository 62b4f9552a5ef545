"""How verbs are found and run: groups in the help, the streams they print to, and the JSON object of a run."""
