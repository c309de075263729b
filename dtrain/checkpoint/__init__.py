"""Manifests, blobs, segments and fences in a store."""
