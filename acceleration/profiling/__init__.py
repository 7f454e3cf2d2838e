"""Profiling one sampling run, and what it showed."""
