"""The only room that imports Ray: actors that hold a network, one a GPU.

Ray is imported at first use, so that the pack loads without it.
"""

from .connection import PACKAGE, connect, gpus_of, is_installed, require_installed
from .team import RankDiedError, Team, TooLongError, end_all, team_of

__all__ = [
    "PACKAGE",
    "RankDiedError",
    "Team",
    "TooLongError",
    "connect",
    "end_all",
    "gpus_of",
    "is_installed",
    "require_installed",
    "team_of",
]
