"""What a loss is made and held to: scaffold, contract, cost."""
