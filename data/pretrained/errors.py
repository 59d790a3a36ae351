"""What a pretrained model raises that can't be used."""

from data.data_error import DataError


class ModelUnavailableError(DataError):
    """One model that can't be loaded or run: says why and what to do. The others of a zoo go on without it."""
