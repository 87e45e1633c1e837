"""What every message to the user must be."""

from cryogem.errors import CryogemError


def is_one_sentence(error: CryogemError) -> bool:
    """Say whether a message is one line that names the trouble and, after a semicolon, the remedy."""
    message = str(error)
    trouble, separator, remedy = message.rpartition('; ')
    return '\n' not in message and bool(trouble and separator and remedy) and not message.endswith('.')
