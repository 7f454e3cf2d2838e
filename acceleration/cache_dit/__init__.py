"""The only room that imports cache-dit, at first use."""
