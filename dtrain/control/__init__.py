"""The control plane: API, store, scheduler, authentication."""
