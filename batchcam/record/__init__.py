"""Numbers from rows: similarity, totals, intervals, evidence."""
