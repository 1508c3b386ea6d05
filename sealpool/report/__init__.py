"""What became of a campaign, on one page that needs no network."""
