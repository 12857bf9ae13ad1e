"""What the parts print on its way to the terminal."""


class Relay:
    """Passes the parts' lines on, and keeps them until there is a display to pass them to."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._show = self._kept.append

    def __call__(self, line: str) -> None:
        """Show a line."""
        self._show(line)

    def attach(self, show: object) -> None:
        """From now on show lines with ``show``."""
        assert callable(show)
        self._show = show
        for line in self._kept:
            show(line)
