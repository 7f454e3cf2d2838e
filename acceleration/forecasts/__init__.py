"""What to put in place of skipped blocks, and giving back what it got wrong."""
