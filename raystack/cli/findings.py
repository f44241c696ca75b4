"""What lint found, as lines that editors and CI understand, or as JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from raystack.cli.terminal import say
from raystack.kuberay.lint import Finding


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """`file:line: error RS301 path: reason; remedy`, one line each."""
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
        return
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    errors = sum(finding.level == "error" for finding in findings)
    say(f"errors: {errors}, warnings: {len(findings) - errors}" if findings else "nothing found")
