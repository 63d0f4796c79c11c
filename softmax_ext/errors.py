"""The exceptions of this package that NumPy users do not already have."""


class DataFormatError(ValueError):
    """A data file is damaged, hostile or of another format than it should be."""


class ModelFormatError(ValueError):
    """A model or checkpoint file is damaged, hostile or of another format."""
