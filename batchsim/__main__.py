"""Entry point of the command ``batchsim``: an error is one line and an exit code, never a traceback."""

import sys

from batchsim.interrupts import Interrupts

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def main() -> None:
    """Run the command line and exit: 2 for a wrong value, 1 for a failure, 130 and 143 for SIGINT and SIGTERM."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _run() -> int:
    from common.errors import BatchSimError, InvalidInput, Terminated

    Interrupts(Terminated).install()
    try:
        # Inside, because these imports take a second in which a signal may come.
        import click

        from batchsim.cli import batchsim

        try:
            code = batchsim.main(standalone_mode=False)
        except click.Abort:
            return EXIT_INTERRUPTED
        except click.ClickException as error:
            error.show()
            return error.exit_code
        return int(code or 0)
    except Terminated:
        return EXIT_TERMINATED
    except BatchSimError as error:
        sys.stderr.write(f"batchsim: {error.message}\n")
        return EXIT_USAGE if isinstance(error, InvalidInput) else EXIT_FAILED


if __name__ == "__main__":
    main()
