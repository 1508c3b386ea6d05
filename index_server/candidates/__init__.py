"""Candidate pools: what a campaign's next round may pick from, grown from what was labelled."""
