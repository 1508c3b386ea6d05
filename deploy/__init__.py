"""How sealpool is run on other people's machines: images, Kubernetes, Prometheus and Grafana.

Nothing here is imported by a service; the Python below writes the files that are generated (`make deploy-files`).
"""
