"""Every exception that tersor raises on purpose.

A message says what happened, what is allowed, and what to do next.
"""


class TersorError(Exception):
    """Base of all tersor errors; catch this to catch everything below."""


class ArgumentError(TersorError, ValueError):
    """A value passed by the caller is outside what the function accepts."""


class ModelError(TersorError, RuntimeError):
    """The user's model cannot be loaded, called or traced."""


class DataError(TersorError, ValueError):
    """The user's data cannot be read, bound to the model, or used as asked."""


class PlanError(TersorError, ValueError):
    """A plan does not fit the model that it is applied to."""


class DivergedError(TersorError, ArithmeticError):
    """A training loss stopped being a finite number."""


class ExportError(TersorError, RuntimeError):
    """A model could not be written for a runtime, or the file disagrees with the model."""


class MeasurementError(TersorError, RuntimeError):
    """A file could not be run or timed."""


class CertificateError(TersorError, ValueError):
    """A certificate cannot be issued or does not verify."""


class FolderError(TersorError, OSError):
    """An output folder cannot be written, or holds something that tersor did not make."""


class MissingExtraError(TersorError, ImportError):
    """An optional dependency is needed for this call and is not installed."""
