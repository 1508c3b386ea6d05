"""The generated messages and stubs of proto/sealpool/v1. Written by `make proto`; not edited by hand."""
