"""FedAOT in Flower: handwritten digits, some clients attack."""
