"""Stream-based selective sampling: of each item as it comes, whether the oracle is asked (StreamService.Consider)."""
