"""One small file for each attention backend: its limits as data, and how it is called."""
