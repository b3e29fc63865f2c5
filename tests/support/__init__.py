"""What the tests share: children under every start method, restricted children, raw packets, leak checks."""
