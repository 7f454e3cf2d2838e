"""One evaluation on several ranks: who holds which tokens, what they exchange, and at which gates.

Knows torch.distributed; neither the host nor Ray.
"""

from .agreement import Together
from .exchange import chosen
from .group import Group, Traffic, peers_doing
from .layout import Layout, require_enough, shares
from .prediction import gather_bytes, keys_bytes, ulysses_bytes
from .report import RankReport, SplitReport
from .rows import Plan, cut_rows, plan
from .sharding import Sharding, why_whole
from .world import World

__all__ = [
    "Group",
    "Layout",
    "Plan",
    "RankReport",
    "Sharding",
    "SplitReport",
    "Together",
    "Traffic",
    "World",
    "chosen",
    "cut_rows",
    "gather_bytes",
    "keys_bytes",
    "peers_doing",
    "plan",
    "require_enough",
    "shares",
    "ulysses_bytes",
    "why_whole",
]
