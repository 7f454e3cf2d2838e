"""What Split Across GPUs was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Checked, setting

SPLITS = ("auto", "sequence", "batch", "cfg")
EXCHANGES = ("auto", "ulysses", "keys")


@dataclass(frozen=True)
class ParallelSettings(Checked):
    """What one Split Across GPUs node was asked to do."""

    gpus: int = setting(
        0,
        "How many GPUs share the model. 0 takes all that this computer, or the cluster at "
        "ray_address, has. Every one of them holds the whole model.",
        lowest=0,
        highest=64,
        limit="it must be 0 for all, or how many, up to 64",
    )
    split: str = setting(
        "auto",
        "What the GPUs share. auto: pictures and prompts first, as these need nothing of each "
        "other, and tokens where GPUs are left over. sequence: the tokens of every picture or "
        "video. batch: pictures and prompts only. cfg: the positive and the negative prompt.",
        choices=SPLITS,
    )
    exchange: str = setting(
        "auto",
        "How GPUs that share tokens attend to all of them; pictures are the same either way. auto: "
        "keys on two GPUs, ulysses on more. keys: every GPU gets all keys and values. ulysses: "
        "every GPU gets some heads; less is sent on more than two.",
        choices=EXCHANGES,
        advanced=True,
    )
    ray_address: str = setting(
        "",
        "Address of a Ray cluster that is running, such as 192.168.0.5:6379. Empty starts Ray on "
        "this computer, closed to all others.",
        advanced=True,
    )
    after_run: str = setting(
        "keep",
        "keep: the processes stay with the model loaded, so that the next run begins at once. "
        "release: they end after every run and their memory is free.",
        choices=("keep", "release"),
        advanced=True,
    )
