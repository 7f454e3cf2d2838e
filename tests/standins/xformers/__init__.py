"""A stand-in for xformers with the signature of its attention."""
