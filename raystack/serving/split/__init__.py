"""Versions of a model beside the one that is served: who answers a request, and who gets a copy of it.

The replicas of the model choose. What they answer themselves takes no other way than without a split; the
rest is computed by the replicas of the other versions, which are Serve applications of their own.
"""
