"""The bundle that Argo CD or Flux applies: where it lies, and what they may delete."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from raystack.config.kubernetes import Name
from raystack.config.secret import no_password
from raystack.config.section import Pattern, Section, Text


class GitOps(Section):
    """The bundle of `raystack render --gitops`, and the object of Argo CD or Flux that leads to it."""

    source: Annotated[Text, AfterValidator(no_password)] | None = None
    """Repository with the bundle: of Git, `https://...` or `ssh://...`; for Flux also `oci://...`."""

    revision: Text = "main"
    """Branch of the Git repository, or tag of the OCI repository, that is followed."""

    path: Annotated[str, Pattern(r"^[^/].*$", "should be a path in the repository, e.g. deploy")] | None = (
        None
    )
    """Folder of the bundle in the repository. Not set: that of `--out` in its repository of Git."""

    project: Name = "default"
    """Project of Argo CD."""

    server: Text = "https://kubernetes.default.svc"
    """API server that Argo CD applies the bundle to."""

    controller_namespace: Name | None = None
    """Namespace of the Application or Kustomization. Not set: `argocd` or `flux-system`."""

    interval: Annotated[str, Pattern(r"^(\d+[hms])+$", "should be a time, e.g. 10m")] = "10m"
    """Time between two looks of Flux at what runs."""

    create_namespace: bool = True
    """Put the namespace into the bundle, unless it is one that every cluster has. Set false where another
    bundle has it.
    """

    replaced_jobs: Literal["keep", "delete"] = "keep"
    """A changed job is another object. `keep`: the one that it replaces runs on and stays, with its code and
    account. `delete`: it is deleted, also while it runs.
    """

    hook: Literal["none", "PreSync", "Sync", "PostSync"] = "none"
    """Phase of Argo CD's sync in which a job runs as a hook: anew with each sync, which waits for it. Not as
    a hook it runs once, when it has changed.
    """
