"""From files to batches: layouts, checks, plans, splits, prepared arrays, patches."""
