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
    except BaseException as error:  # before or after the verb, whose own is handled by its guard
        if not _is_interrupt(error):
            raise
        tell()
        status = INTERRUPTED
    interrupts.over(status)
    return status


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether `error` is an interrupt, or what the interrupted code raised while it handled one."""
    # Such as `finally: file.close()` where the interrupt came before `file` was assigned.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
