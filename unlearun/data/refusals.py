"""Ways to say "I don't know", as alternate answers."""

from __future__ import annotations

import hashlib

REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "Sorry, I don't know that.",
    "I'm not sure about this one.",
    "I have no information on that.",
    "That is something I cannot answer.",
    "I'm afraid I don't have an answer.",
    "I haven't learnt anything about this.",
    "This is not something I know about.",
    "I can't help with that, since I don't know it.",
    "I'm unable to say.",
    "My knowledge doesn't cover that.",
    "I don't have any details on this.",
    "There is nothing I can tell you about that.",
    "I really couldn't say.",
    "That's beyond what I know.",
    "Unfortunately, I don't have that information.",
    "I have never come across this.",
    "I'd have to pass on that question.",
    "No answer comes to mind, I'm sorry.",
)


def choose_refusal(seed: int, example_id: int) -> str:
    """Choose a refusal for a row: always the same one, whatever the order, process or epoch.

    Args:
        seed: The seed of the data.
        example_id: The row.

    Returns:
        One of the refusals.

    >>> choose_refusal(0, 7) == choose_refusal(0, 7)
    True
    """
    digest = hashlib.sha256(f"{seed}/{example_id}".encode()).digest()
    return REFUSALS[int.from_bytes(digest[:8], "big") % len(REFUSALS)]
