"""A thin Kubernetes API server for tests, good enough that the real kubectl works against it.

    cluster.py   FakeCluster: what a test holds
    server.py    HTTP                       discovery.py  what is served
    verbs.py     create, patch, apply ...   ownership.py  server-side apply and managedFields
    store.py     versions, watch, deletion  patch.py      the other patches
    kinds.py     the kinds                  schema.py     validation, with rules.py for CEL
    table.py     kubectl get                selectors.py  labels and fields
    logs.py      pods/log                   websocket.py  pods/portforward
    events.py    events                     operator.py   what KubeRay's operator writes back
    refusal.py   what is refused

There are no controllers, no admission and no defaults of Kubernetes' own kinds.
"""

from fake.cluster import FakeCluster

__all__ = ["FakeCluster"]
