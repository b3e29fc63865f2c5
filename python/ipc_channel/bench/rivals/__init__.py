"""Everybody who is measured: this package, its peers, and what is no peer but a yardstick."""
