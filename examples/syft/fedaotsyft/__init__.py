"""FedAOT over SyftBox: private digits, some datasites attack."""
