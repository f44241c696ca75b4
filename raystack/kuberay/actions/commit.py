"""A promotion as a commit: the version that a bundle of `raystack render --gitops` serves is another one.

In: the folder of a bundle, and a version. Out: a commit with nothing else in it, which nobody has pushed yet.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raystack.errors import ConfigError, LaunchError, Problem
from raystack.kuberay.actions import folder as folders

_GIT_S = 60
"""Seconds that Git, with the hooks of the repository, may take."""


RENDER = "write the service with `raystack render --as service --gitops argo -o FOLDER`"


@dataclass(frozen=True)
class Served:
    """The version of a registered model that a bundle serves."""

    folder: Path
    model: str
    version: str
    texts: Mapping[Path, str]
    """Files that name it."""

    @classmethod
    def read(cls, folder: Path, model: str | None) -> "Served":
        """Find it.

        Raises ConfigError if there is none, several, or what has not been committed, and LaunchError if Git
        would refuse the commit.
        """
        if model is None:
            raise ConfigError(Problem("registry.model", rule="names no registered model", remedy="set it"))
        if not folder.is_dir():
            raise _wrong(folder, "is no folder", "", RENDER)
        named = re.compile(_named(model))
        texts = {path: path.read_text(encoding="utf-8") for path in folders.rendered(folder) if _says(path)}
        texts = {path: text for path, text in texts.items() if named.search(text)}
        found = sorted({match[1] for text in texts.values() for match in named.finditer(text)}, key=int)
        if not found:
            raise _wrong(folder, f"has no service with a version of models:/{model}", "", RENDER)
        if len(found) > 1:
            rule = f"serves several versions of models:/{model}"
            raise _wrong(folder, rule, ", ".join(found), "end the rollout, and render it again")
        changed = _git(folder, "status", "--porcelain", "--", *_names(folder, texts))
        if changed:
            rule, remedy = "has changes that are in no commit", "commit them first"
            raise _wrong(folder, rule, changed.splitlines()[0].strip(), remedy)
        _git(folder, "var", "GIT_COMMITTER_IDENT")
        # In the middle of a merge Git refuses to commit some files only; 1 says that nothing has changed yet.
        _git(folder, "commit", "--dry-run", "--only", "--", *_names(folder, texts), fine=(0, 1))
        return cls(folder, model, found[0], texts)

    def commit(self, version: str, why: str) -> str | None:
        """Have the bundle serve the version, and commit that; return the commit, None if it did before.

        Raises LaunchError if Git refuses it.
        """
        if version == self.version:
            return None
        after = f"models:/{self.model}/{version}"
        named = re.compile(_named(self.model))
        changed = {
            path.relative_to(self.folder).as_posix(): named.sub(after, text)
            for path, text in self.texts.items()
        }
        folders.rewrite(self.folder, changed)
        names = _names(self.folder, self.texts)
        message = f"Serve version {version} of {self.model} instead of {self.version}\n\n{why}"
        _git(self.folder, "commit", "--quiet", "--message", message, "--only", "--", *names)
        return _git(self.folder, "rev-parse", "--short", "HEAD").strip()


def _named(model: str) -> str:
    return rf"models:/{re.escape(model)}/(\d+)\b"


def _says(path: Path) -> bool:
    """Return whether a file of a bundle says which version is served."""
    return path.name == "values.yaml" or path.name.startswith("rayservice-")


def _names(folder: Path, texts: Mapping[Path, str]) -> list[str]:
    return [*(path.relative_to(folder).as_posix() for path in texts), folders.RECORD]


def _git(folder: Path, *words: str, fine: tuple[int, ...] = (0,)) -> str:
    """Run Git in the folder and return its output. Raises LaunchError with what it says."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(Problem("git", rule=str(error), remedy="is it installed?")) from None
    if done.returncode not in fine:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason").splitlines()[-1]
        raise LaunchError(Problem(f"git {words[0]}", rule=said, got=str(folder)))
    return done.stdout


def _wrong(folder: Path, rule: str, got: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("--commit", rule=f"{folder} {rule}", got=got or None, remedy=remedy))
