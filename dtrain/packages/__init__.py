"""Packages that a job's code requires: settled once a job as a lock, installed once a host beside what the workers have. Never by the control plane."""
