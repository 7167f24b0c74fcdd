"""The process and its scheduler: share, stop, console, confinement."""
