"""The command line of this process -> exit status. It imports nothing before signals are handled."""

from raystack.interrupts import INTERRUPTED, Interrupts, tell


def run(verb: str | None = None) -> int:
    """Run the words that this process was started with; `verb` is given if a module stands for one verb.

    A signal has a documented status and one line from here to the end of the process.
    """
    interrupts = Interrupts()
    interrupts.install()
    try:
        from raystack.cli.main import main

        status = main(verb=verb)
    except KeyboardInterrupt:  # before or after the verb, whose own is handled by its guard
        tell()
        status = INTERRUPTED
    interrupts.over(status)
    return status
