"""`python -m raystack.lint FILE...`: manifests of KubeRay by the operator's own rules, and by those that
nobody else checks.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raystack.cli.arguments import Arguments, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("lint", argv))


def run(arguments: Arguments) -> int:
    """Returns the exit status: that of a PlanError where a finding is an error."""
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    return guard(lambda: _lint(arguments), verbose=arguments.verbose)


def _lint(arguments: Arguments) -> int:
    from raystack.cli.findings import show_findings
    from raystack.errors import PlanError
    from raystack.kuberay.lint import Operator, lint, read

    operator = Operator(gates=frozenset(arguments.gates), scheduler=arguments.scheduler)
    if arguments.kuberay is not None:
        operator = replace(operator, version=arguments.kuberay)
    findings = lint([document for file in arguments.files for document in read(Path(file))], operator)
    show_findings(findings, as_json=arguments.json)
    return PlanError.exit_code if any(finding.level == "error" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
