"""The part of a rollout that Kubernetes needs: who splits the requests between two services."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raystack.config.section import ConflictError, Pattern, Section

DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

Gateway = Annotated[
    str,
    Pattern(rf"^({DNS}/)?{DNS}$", "should be the name of a Gateway, or namespace/name"),
]
Listener = Annotated[str, Pattern(rf"^{DNS}(\.{DNS})*$", "should be the name of a listener of the Gateway")]
Hostname = Annotated[
    str,
    Pattern(rf"^(\*\.)?{DNS}(\.{DNS})*$", "should be a host name, e.g. digits.example.com"),
]


class Mesh(Section):
    """A splitting of the requests outside of Ray Serve, between a RayService for each of both versions.

    A mesh draws each request anew, so no key stays with a version, and it drops the answers to copies.
    """

    kind: Literal["gateway", "istio"]
    """`gateway`: HTTPRoute, and GRPCRoute for `serving.grpc_port`, of the Gateway API 1.3 or later. `istio`:
    a VirtualService.
    """

    gateway: Gateway | None = None
    """Gateway through which the requests come, of the Gateway API or of Istio. Not set: they come from within
    the mesh, to the service of the version that is served.
    """

    hosts: Annotated[tuple[Hostname, ...], Field(strict=False, max_length=16)] = ()
    """Host names of the requests that come through the gateway. Not set: all that it takes."""

    listener: Listener | None = None
    """Listener of the gateway, for HTTP. Not set: all of them. With `serving.grpc_port` and the Gateway API
    both listeners are named, because one takes either kind of requests for a host.
    """

    grpc_listener: Listener | None = None
    """Listener of the gateway for gRPC."""

    @model_validator(mode="after")
    def _of_a_gateway(self) -> Self:
        for key in ("hosts", "listener", "grpc_listener"):
            if getattr(self, key) and self.gateway is None:
                remedy = f"set rollout.mesh.gateway, or drop {key}"
                raise ConflictError("is for requests through a gateway", key, "gateway", remedy=remedy)
            if key != "hosts" and getattr(self, key) and self.kind == "istio":
                rule = "is the Gateway API's: a gateway of Istio names its ports itself"
                raise ConflictError(rule, key, "kind", remedy=f"drop {key}")
        return self
