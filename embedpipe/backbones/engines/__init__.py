"""The engines that run a network: torch, torch with folded batch-norms, or OpenVINO. The spec does not name them."""
