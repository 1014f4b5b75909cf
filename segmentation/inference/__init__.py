"""From scans to masks."""
