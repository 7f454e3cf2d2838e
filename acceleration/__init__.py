"""The shared acceleration engine: rooms on floors, each importing only from floors below its own.

CONTRIBUTING.md has the map. A sampling run passes ``settings`` (what was asked), ``host`` (onto a
MODEL), ``sampling`` (a run, its branches, the gates of one evaluation), ``policies`` (when to
skip), ``forecasts`` (what to put in place) and ``store`` (where tensors live). The modules beside
the rooms are words that all share.
"""
