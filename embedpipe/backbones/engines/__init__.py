"""What runs a network: torch as it is, torch with folded batch-norms, or OpenVINO. Never part of what is declared."""
