"""The shared acceleration engine.

Rooms, outermost first: ``settings`` (what was asked) → ``attach`` (onto a MODEL) → ``run`` (one
sampling run and its branches) → ``gates`` (on the blocks of one evaluation) → ``policies`` (when to
skip) → ``forecast`` (what to put in place) → ``residual_store`` (where tensors live) → ``report``.
``families`` holds what is known of each model; ``host`` is the only room that imports ComfyUI and
``cache_dit_adapter`` the only one that imports cache-dit.
"""
