"""The commands that the project's pages tell a reader to type."""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md")), ROOT / "kuberay" / "README.md"]
PROGRAMS = ("python ", "ray ", "make", "source ", "export ", "raystack ", "pip ", "kubectl ", "helm ", "docker ")


def commands(pages: Iterable[Path] = PAGES) -> list[str]:
    """Lines of the pages' plain code blocks that are commands, each once, without their comments and line breaks."""
    blocks = [block for page in pages for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)]
    text = "\n".join(block for language, block in blocks if not language)
    lines = [line.removeprefix("$ ").partition("  #")[0].strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(PROGRAMS)))


def on_kubernetes(command: str) -> bool:
    """Whether it needs an API server, or is about what is sent to one."""
    return command.startswith(("raystack ", "kubectl ")) and not command.startswith("raystack checkpoint") and "target=job" not in command
