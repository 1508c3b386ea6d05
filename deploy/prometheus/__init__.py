"""Recording rules and alerts for Prometheus, and what its operator on Kubernetes reads."""
