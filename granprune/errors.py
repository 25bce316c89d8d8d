"""The one exception that ends a command with a single line instead of a traceback."""


class UserError(ValueError):
    """The input is wrong in a way its author can mend: the message says what, where and how."""
