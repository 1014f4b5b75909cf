"""Studies: conditions, frozen runs, the processes that work through them."""
