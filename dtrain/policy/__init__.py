"""Every decision as a pure function: admission, cutting, membership, failure, cadence."""
