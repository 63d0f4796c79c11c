"""The exceptions of this package that NumPy users do not already have."""


class DataFormatError(ValueError):
    """A data file is damaged, hostile or of another format than it should be."""


class ModelFormatError(ValueError):
    """A model or checkpoint file is damaged, hostile or of another format."""


class ArgumentError(Exception):
    """A kernel has refused an argument. Raised as one of the two below, to tell a refusal from a
    fault."""


class ArgumentTypeError(ArgumentError, TypeError):
    """A kernel has refused an argument's type."""


class ArgumentValueError(ArgumentError, ValueError):
    """A kernel has refused an argument's shape or value."""
