"""Generated from protos/dtrain/v1 by `make proto`: do not edit."""
