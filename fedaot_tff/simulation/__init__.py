"""Running federated training in simulation."""
