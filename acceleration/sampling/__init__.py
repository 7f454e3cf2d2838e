"""One sampling run: what is wrapped around blocks, what is remembered, what is told."""
