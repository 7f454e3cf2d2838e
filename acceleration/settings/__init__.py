"""What was asked for: validated, from nodes, files and the environment."""
