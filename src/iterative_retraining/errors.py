"""The errors that a user can mend: each message names the value, what is allowed and the way out."""


class UserError(Exception):
    """What every command line prints as one line, without a traceback."""


class ConfigError(UserError, ValueError):
    """A parameter is not allowed."""


class DataError(UserError, RuntimeError):
    """The files of a data set are missing or damaged."""


class RunError(UserError, RuntimeError):
    """A run directory cannot be used or written."""


class WeightsError(UserError, RuntimeError):
    """Weights of a feature network are missing, damaged or of another network."""


class PretrainedError(UserError, RuntimeError):
    """Weights to start from are missing, damaged, hostile, or of a network that this package does not have."""


class NonFiniteLossError(UserError, FloatingPointError):
    """A training loss was NaN or infinite; the message names the step and the last finite loss."""
