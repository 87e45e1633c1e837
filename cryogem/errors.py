"""What can go wrong in a way the user can mend. Each message is one sentence: the field, the value, the remedy."""


class CryogemError(Exception):
    """Base of all expected errors; the command line prints it as one line and exits with 2."""


class ConfigError(CryogemError):
    """A setting is missing, unknown or out of range."""


class InputError(CryogemError):
    """A file or folder given by the user cannot be used."""


class OutputError(CryogemError):
    """Results cannot be written where the user asked."""


class TrainingError(CryogemError):
    """Training cannot go on; the last good checkpoint is kept."""
