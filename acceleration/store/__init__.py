"""Where tensors live that outlive an evaluation, and how compactly."""
