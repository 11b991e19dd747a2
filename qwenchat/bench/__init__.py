"""Speed and fidelity, measured beside their ceilings and peers."""
