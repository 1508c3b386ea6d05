"""Membership query synthesis: new items made from labelled ones, and real items found by made points."""
