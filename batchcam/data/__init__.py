"""Where images come from: sources, loader, preprocessing."""
