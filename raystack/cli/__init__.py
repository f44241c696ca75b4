"""Arguments in, terminal output and exit status out: the only room that writes text for people."""
