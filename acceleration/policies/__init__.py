"""When to skip: one file a technique, all behind the interface in ``base``."""
