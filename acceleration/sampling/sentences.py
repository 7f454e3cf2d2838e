"""What a run says of evaluations in which nothing was skipped, and why."""

AFTER_END = "after end_percent"
PLAIN = "not accelerated"
WENT_WRONG = "acceleration failed"

GRADIENTS = "gradients are on, and what is skipped has none, so nothing was skipped"

NOT_FINITE_SENTENCE = (
    "the change of the first blocks is not a finite number on this model, so nothing can be "
    "skipped safely"
)

LAST_BLOCK_REPLACED = (
    "another patch replaces the last block of this model, so caching was switched off for this run"
)

CALLED_AGAIN = (
    "this model calls its blocks more than once in some evaluations, mostly to keep what they make "
    "of the prompt; these evaluations were computed and nothing of them was reused"
)

REPLACED = (
    "another patch replaces blocks of this model, so some evaluations could not be recorded and "
    "were computed"
)

PEER_COMPUTES = "another GPU computes"

PEER_GAVE_UP = "another GPU could remember nothing more, so all of them computed the rest in full"
