"""One folder (or file) a command, named as the user says it."""
